# Published: box AP 41.2, mask AP 35.9 on COCO val2017 (mmdet model zoo, cascade-mask-rcnn_r50_fpn_1x_coco).
_base_ = [
    '../_base_/models/cascade_mask_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
data = dict(train=dict(masks=True), val=dict(masks=True))
evaluation = dict(type='segm')
