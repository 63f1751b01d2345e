# Published: box AP 40.3 on COCO val2017 (mmdet model zoo, cascade-rcnn_r50_fpn_1x_coco).
_base_ = [
    '../_base_/models/cascade_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
