# EfficientNet-Lite0 as a classifier, from random weights; only the last feature map is used.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='tf_efficientnet_lite0',
        weights=None,
        out_strides=[32],
        frozen_stages=-1,
        norm='batch',
    ),
    classifier=dict(smoothing=0.1, mixup=0.2, cutmix=1.0),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
