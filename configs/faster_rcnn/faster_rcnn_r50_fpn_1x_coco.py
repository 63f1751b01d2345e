# Published: box AP 37.4 on COCO val2017 (mmdet model zoo, faster-rcnn_r50_fpn_1x_coco).
_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
