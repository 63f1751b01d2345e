# Published: box AP 40.3 on COCO val2017 (mmdet 3.3.0, configs/faster_rcnn/metafile.yml,
# faster-rcnn_r50_fpn_mstrain_3x_coco); Detectron2's faster_rcnn_R_50_FPN_3x reports 40.2 (MODEL_ZOO.md).
_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/runtime.py',
]
