# Faster R-CNN with a feature pyramid on ResNet-50 (Ren et al. 2015; Lin et al. 2017).
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V1',
        levels=[1, 2, 3, 4],
        frozen_stages=1,
        norm='frozen',
    ),
    neck=dict(type='FPN', out_channels=256, extra='maxpool'),
    head=dict(
        type='FasterRCNNHead',
        num_classes=80,
        rpn=dict(sizes=[[32], [64], [128], [256], [512]], ratios=[0.5, 1.0, 2.0]),
        roi=dict(levels=4, batch=512, channels=1024),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
