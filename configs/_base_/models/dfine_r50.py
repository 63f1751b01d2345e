# D-FINE on torchvision's ResNet-50.
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V2',
        out_strides=[8, 16, 32],
        frozen_stages=1,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', out_channels=256),
    head=dict(type='DFineHead', num_classes=80, decoder=dict(layers=6, points=[3, 6, 3])),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
