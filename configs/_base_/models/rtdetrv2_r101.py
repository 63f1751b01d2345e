# RT-DETRv2 on ResNet-101d.
_base_ = ['./rtdetrv2.py']
model = dict(
    backbone=dict(name='resnet101d', weights='timm:resnet101d.ra2_in1k'),
    neck=dict(out_channels=384, feedforward=2048, expansion=1.0),
    head=dict(decoder=dict(layers=6)),
)
