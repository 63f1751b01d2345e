# Mask R-CNN as torchvision's maskrcnn_resnet50_fpn_v2; fits its published COCO weights.
_base_ = ['./faster_rcnn_r50_fpn_v2_torchvision.py']
model = dict(
    head=dict(
        type='MaskRCNNHead',
        mask=dict(pool=14, convs=4, channels=256, norm='batch', targets='torchvision', threshold=0.5, paste='resized'),
    )
)
