# RetinaNet for small machines: EfficientNet-Lite0, a pyramid of 128 channels, two convolutions a tower, which learn
# faster with GroupNorm, and boxes faster with the GIoU loss (both as in torchvision's second version). An anchor is
# three strides wide and more: half of that, and large objects learn their boxes a level too coarse (blood cells, three
# minutes: AP 0.52 instead of 0.57).
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='tf_efficientnet_lite0',
        weights='package:efficientnet_lite0',
        out_strides=[8, 16, 32],
        frozen_stages=2,
        norm='frozen',
    ),
    neck=dict(type='FPN', out_channels=128, extra='maxpool', norm='batch'),
    head=dict(
        type='RetinaNetHead',
        num_classes=80,
        stacked_convs=2,
        norm='group',
        conv_bias=False,
        settings=dict(
            sizes=[[24, 30, 38], [48, 60, 76], [96, 121, 152], [192, 242, 305]],
            ratios=[0.5, 1.0, 2.0],
            box_loss='giou',
            weights=[10.0, 10.0, 5.0, 5.0],
            drop_empty=True,
        ),
    ),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
