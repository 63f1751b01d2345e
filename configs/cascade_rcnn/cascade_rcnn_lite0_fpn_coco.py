# For small machines; no published AP. Images of 320 x 448.
_base_ = [
    '../_base_/models/cascade_rcnn_lite0_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/small.py',
    '../_base_/runtime.py',
]
data = dict(
    train=dict(
        transforms=[
            dict(type='Resize', short=[288, 320, 352], long=512),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
    val=dict(transforms=[dict(type='Resize', short=320, long=512)]),
    loader=dict(batch_size=16, eval_batch_size=16, workers='auto'),
)
