# RetinaNet on ResNet-50 (Lin et al. 2017).
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V1',
        levels=[2, 3, 4],
        frozen_stages=1,
        norm='frozen',
    ),
    neck=dict(type='FPN', out_channels=256, extra='p6p7_c5'),
    head=dict(
        type='RetinaNetHead',
        num_classes=80,
        stacked_convs=4,
        settings=dict(
            sizes=[[32, 40.32, 50.8], [64, 80.63, 101.59], [128, 161.27, 203.19], [256, 322.54, 406.37], [512, 645.08, 812.75]],
            ratios=[0.5, 1.0, 2.0],
            normalise='batch',
        ),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
