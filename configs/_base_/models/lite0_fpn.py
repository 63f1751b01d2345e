# EfficientNet-Lite0 with a feature pyramid of 128 channels from stride 8 up: the base of all detectors for small
# machines.
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
    head=dict(num_classes=80),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
