# D-FINE for small machines: EfficientNet-Lite0, 128 channels, three decoder layers, 100 queries.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(name='tf_efficientnet_lite0', weights='package:efficientnet_lite0', frozen_stages=2),
    neck=dict(out_channels=128, feedforward=512, expansion=0.5, depth=1),
    head=dict(
        num_queries=100,
        decoder=dict(channels=128, layers=3, feedforward=512),
        settings=dict(max_per_img=100),
    ),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
