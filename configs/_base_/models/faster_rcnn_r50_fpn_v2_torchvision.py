# Faster R-CNN as torchvision's fasterrcnn_resnet50_fpn_v2 (after Li et al. 2021, Benchmarking detection transfer
# learning with vision transformers): trainable norms also in the pyramid, two convolutions in the RPN, four
# convolutions and one fully connected layer in the box branch. Fits the published COCO weights.
_base_ = ['./faster_rcnn_r50_fpn_torchvision.py']
model = dict(
    backbone=dict(weights='torchvision:ResNet50_Weights.IMAGENET1K_V2', norm='batch'),
    neck=dict(norm='batch'),
    head=dict(rpn=dict(convs=2), roi=dict(convs=4, norm='batch', fcs=1)),
)
