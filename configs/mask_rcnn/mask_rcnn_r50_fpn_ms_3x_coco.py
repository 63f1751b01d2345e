# Published: box AP 40.9, mask AP 37.1 on COCO val2017 (mmdet model zoo, configs/mask_rcnn/metafile.yml,
# mask-rcnn_r50_fpn_mstrain-poly_3x_coco).
_base_ = [
    '../_base_/models/mask_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/runtime.py',
]
data = dict(train=dict(masks=True), val=dict(masks=True))
evaluation = dict(type='segm')
