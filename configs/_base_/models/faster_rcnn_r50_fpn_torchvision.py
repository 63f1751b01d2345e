# Faster R-CNN as torchvision's fasterrcnn_resnet50_fpn builds it; its published COCO weights fit.
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V1',
        out_strides=[4, 8, 16, 32],
        frozen_stages=1,
        norm='frozen',
    ),
    neck=dict(type='FPN', out_channels=256, extra='maxpool'),
    head=dict(
        type='FasterRCNNHead',
        num_classes=80,
        rpn=dict(
            sizes=[[32], [64], [128], [256], [512]],
            ratios=[0.5, 1.0, 2.0],
            rounding=True,
            step='torchvision',
            low_quality='own',
            pre_nms=[2000, 1000],
            post_nms=[2000, 1000],
        ),
        roi=dict(levels=4, sampling_ratio=2, aligned=False, batch=512, channels=1024),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
