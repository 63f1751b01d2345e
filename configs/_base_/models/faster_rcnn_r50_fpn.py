# Faster R-CNN with a feature pyramid on ResNet-50 (Ren et al. 2015; Lin et al. 2017), with the settings of mmdet's
# faster-rcnn_r50_fpn_1x_coco: regions sampled as finely as their size asks for and shifted by half a pixel, L1 losses,
# anchors that are not rounded, each object's best anchors taken from an overlap of 0.3 on.
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
    head=dict(
        type='FasterRCNNHead',
        num_classes=80,
        rpn=dict(
            sizes=[[32], [64], [128], [256], [512]],
            ratios=[0.5, 1.0, 2.0],
            rounding=False,
            low_quality='object',
            least=0.3,
            beta=0.0,
            pre_nms=[2000, 1000],
            post_nms=[1000, 1000],
            min_size=1e-6,
        ),
        roi=dict(levels=4, sampling_ratio=0, aligned=True, batch=512, channels=1024, beta=0.0, min_size=0.0),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
