# D-FINE on torchvision's ResNet-50, with its normalization.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V2',
        frozen_stages=1,
    ),
    neck=dict(out_channels=256),
    head=dict(decoder=dict(layers=6)),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
