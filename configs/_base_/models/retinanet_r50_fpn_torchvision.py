# torchvision's retinanet_resnet50_fpn: P6 from P5, a ReLU between P6 and P7, rounded anchors that step by the padded
# image's share. Torchvision divides each image's losses by its own positives (loss_normalizer='image'); here they are
# divided by a running mean, so that an image without objects does not outweigh all others.
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V1',
        out_strides=[8, 16, 32],
        frozen_stages=1,
        norm='frozen',
    ),
    neck=dict(type='FPN', out_channels=256, extra='p6p7_p5', relu_before_p7=True),
    head=dict(
        type='RetinaNetHead',
        num_classes=80,
        stacked_convs=4,
        settings=dict(
            sizes=[[32, 40, 50], [64, 80, 101], [128, 161, 203], [256, 322, 406], [512, 645, 812]],
            ratios=[0.5, 1.0, 2.0],
            rounding=True,
            step='torchvision',
            low_quality='own',
            keep=300,
            drop_empty=False,
        ),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
