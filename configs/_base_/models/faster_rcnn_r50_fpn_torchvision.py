# Faster R-CNN as torchvision's fasterrcnn_resnet50_fpn; fits its published COCO weights.
_base_ = ['./r50_fpn.py']
model = dict(
    backbone=dict(norm='frozen'),
    head=dict(
        type='FasterRCNNHead',
        rpn=dict(
            sizes=[[32], [64], [128], [256], [512]],
            ratios=[0.5, 1.0, 2.0],
            rounding=True,
            step='torchvision',
            low_quality='own',
            pre_nms=[2000, 1000],
            post_nms=[2000, 1000],
        ),
        roi=dict(levels=4, sampling_ratio=2, aligned=False, batch=512, channels=1024),
    ),
)
