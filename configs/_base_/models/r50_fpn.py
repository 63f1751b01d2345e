# ResNet-50 with a feature pyramid of 256 channels: the base of all R50 detectors. As in MMDetection, BatchNorm of the
# backbone is in eval mode; its weights and biases are trained. One-stage detectors take strides 8 to 32.
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V1',
        out_strides=[4, 8, 16, 32],
        frozen_stages=1,
        norm='eval',
    ),
    neck=dict(type='FPN', out_channels=256, extra='maxpool'),
    head=dict(num_classes=80),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
