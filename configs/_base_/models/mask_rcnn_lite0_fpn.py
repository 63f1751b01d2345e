# Mask R-CNN on EfficientNet-Lite0: a mask branch of two convolutions.
_base_ = ['./faster_rcnn_lite0_fpn.py']
model = dict(
    head=dict(
        type='MaskRCNNHead',
        mask=dict(pool=14, convs=2, channels=64, targets='coverage', paste='sampled'),
    )
)
