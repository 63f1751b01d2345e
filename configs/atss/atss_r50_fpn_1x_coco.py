# Published: box AP 39.4 on COCO val2017 (mmdet model zoo, configs/atss/metafile.yml, atss_r50_fpn_1x_coco).
_base_ = [
    '../_base_/models/atss_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
optimizer = dict(lr=0.01)
