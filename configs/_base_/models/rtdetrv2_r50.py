# RT-DETRv2 on ResNet-50d.
_base_ = ['./rtdetrv2.py']
model = dict(
    backbone=dict(name='resnet50d', weights='timm:resnet50d.ra2_in1k'),
    neck=dict(expansion=1.0),
    head=dict(decoder=dict(layers=6)),
)
