# Published: box AP 39.5 on COCO val2017 (mmdet 3.3.0, configs/retinanet/metafile.yml,
# retinanet_r50_fpn_ms-640-800-3x_coco); Detectron2's retinanet_R_50_FPN_3x reports 38.7 (MODEL_ZOO.md).
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/runtime.py',
]
optimizer = dict(lr=0.01)
