# Cascade Mask R-CNN on EfficientNet-Lite0.
_base_ = ['./cascade_rcnn_lite0_fpn.py']
model = dict(head=dict(mask=dict(pool=14, convs=2, channels=64, targets='coverage', paste='sampled')))
