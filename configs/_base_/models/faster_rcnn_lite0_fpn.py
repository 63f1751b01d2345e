# Faster R-CNN for small machines: EfficientNet-Lite0, a pyramid of 128 channels from stride 8 up, and a second stage
# that draws 128 regions an image, up to half of them objects: in a short run the box branch sees enough of them.
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
        type='FasterRCNNHead',
        num_classes=80,
        rpn=dict(sizes=[[16, 32], [48, 64], [96, 128], [192, 256]], ratios=[0.5, 1.0, 2.0], pre_nms=[500, 300], post_nms=[500, 300]),
        roi=dict(levels=3, batch=128, positive_fraction=0.5, channels=512),
    ),
    preprocess=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
