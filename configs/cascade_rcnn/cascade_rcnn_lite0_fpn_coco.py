# Lite0 detector for small machines, input size 320 x 448. No published AP.
_base_ = [
    '../_base_/models/cascade_rcnn_lite0_fpn.py',
    '../_base_/datasets/coco_detection_320.py',
    '../_base_/schedules/small.py',
    '../_base_/runtime.py',
]
