# MS-COCO 2017 with a random short side from 640 to 800 (mmdet 3.3.0, configs/common/ms_3x_coco.py).
_base_ = ['coco_detection.py']
data = dict(
    train=dict(
        transforms=[
            dict(type='Resize', short=[640, 800], long=1333, mode='range'),
            dict(type='HorizontalFlip', p=0.5),
        ]
    )
)
