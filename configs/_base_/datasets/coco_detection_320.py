# MS-COCO 2017 at a short side of 320 pixels, for the Lite0 detectors.
_base_ = ['coco_detection.py']
data = dict(
    train=dict(
        transforms=[
            dict(type='Resize', short=[288, 320, 352], long=512),
            dict(type='HorizontalFlip', p=0.5),
        ]
    ),
    val=dict(transforms=[dict(type='Resize', short=320, long=512)]),
    loader=dict(batch_size=16, eval_batch_size=16, workers='auto'),
)
