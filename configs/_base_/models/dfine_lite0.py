# D-FINE for small machines: EfficientNet-Lite0, 128 channels, three decoder layers, 100 queries.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='tf_efficientnet_lite0',
        weights='package:efficientnet_lite0',
        out_strides=[8, 16, 32],
        frozen_stages=2,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', out_channels=128, feedforward=512, expansion=0.5, depth=1),
    head=dict(
        type='DFineHead',
        num_classes=80,
        num_queries=100,
        decoder=dict(channels=128, layers=3, feedforward=512, points=[3, 6, 3]),
        settings=dict(max_per_img=100),
    ),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
