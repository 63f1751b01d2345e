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
            nms_pre=[2000, 1000],
            nms_post=[2000, 1000],
        ),
        roi=dict(levels=4, sampling_ratio=2, aligned=False, num_samples=512, channels=1024),
    ),
)
