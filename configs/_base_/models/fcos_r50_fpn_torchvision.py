# torchvision's fcos_resnet50_fpn: locations at the cells' top left corners, no learned scales, every box alike in the
# loss, the root of class score and centerness as the score.
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
        type='FCOSHead',
        num_classes=80,
        stacked_convs=4,
        norm='group',
        conv_bias=True,
        scales=False,
        centerness_on='box',
        settings=dict(
            borders=[64, 128, 256, 512],
            closed=False,
            radius=1.5,
            offset=0.0,
            step='torchvision',
            distances='relu',
            box_weight='equal',
            scoring='root',
            score=0.2,
            nms_iou=0.6,
            drop_empty=False,
        ),
    ),
    preprocess=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
