# RT-DETRv2-M on ResNet-50d. The published AP is that of the third of six decoder layers (`eval_idx: 2` in
# lyuwenyu/RT-DETR, rtdetrv2_r50vd_m_7x_coco.yml).
_base_ = ['./rtdetrv2.py']
model = dict(
    backbone=dict(name='resnet50d', weights='timm:resnet50d.ra2_in1k'),
    neck=dict(expansion=0.5),
    head=dict(decoder=dict(layers=6, eval_layers=3)),
)
