# RT-DETRv2 on ResNet-18d.
_base_ = ['./rtdetrv2.py']
model = dict(
    backbone=dict(name='resnet18d', weights='timm:resnet18d.ra2_in1k', shortcut_conv=True),
    neck=dict(expansion=0.5),
    head=dict(decoder=dict(layers=3)),
)
