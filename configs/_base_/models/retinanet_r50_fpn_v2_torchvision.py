# RetinaNet as torchvision's retinanet_resnet50_fpn_v2: P6 from C5, GroupNorm towers without biases, GIoU box loss,
# trainable BatchNorm in the backbone.
_base_ = ['retinanet_r50_fpn_torchvision.py']
model = dict(
    backbone=dict(weights='torchvision:ResNet50_Weights.IMAGENET1K_V2', norm='batch'),
    neck=dict(extra='p6p7_c5'),
    head=dict(norm='group', conv_bias=False, settings=dict(box_loss='giou')),
)
