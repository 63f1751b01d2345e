# ATSS for small machines: EfficientNet-Lite0, a pyramid of 128 channels from stride 8 up, two convolutions a tower;
# anchors of 32 to 256 pixels.
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
        type='ATSSHead',
        num_classes=80,
        stacked_convs=2,
        norm='group',
        settings=dict(
            scale=4.0,
            topk=9,
            drop_empty=True,
        ),
    ),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
