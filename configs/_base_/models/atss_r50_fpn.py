# ATSS on ResNet-50 (Zhang et al. 2020) as mmdet 3.3.0 has it (configs/atss/atss_r50_fpn_1x_coco.py).
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        weights='torchvision:ResNet50_Weights.IMAGENET1K_V1',
        out_strides=[8, 16, 32],
        frozen_stages=1,
        norm='eval',
    ),
    neck=dict(type='FPN', out_channels=256, extra='p6p7_p5', relu_before_p7=False),
    head=dict(
        type='ATSSHead',
        num_classes=80,
        stacked_convs=4,
        norm='group',
        conv_bias=False,
        settings=dict(
            scale=8.0,
            topk=9,
            weights=[10.0, 10.0, 5.0, 5.0],
            alpha=0.25,
            gamma=2.0,
            box_weight=2.0,
            score=0.05,
            pre_nms=1000,
            nms_iou=0.6,
            keep=100,
            drop_empty=True,
        ),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
