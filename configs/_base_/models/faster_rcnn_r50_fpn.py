# Faster R-CNN on ResNet-50 (Ren et al. 2015; Lin et al. 2017) with the settings of mmdet's
# faster-rcnn_r50_fpn_1x_coco: RoIAlign with adaptive sampling and aligned=True, L1 box losses, anchors that are not
# rounded, low-quality matches from an IoU of 0.3 up.
_base_ = ['./r50_fpn.py']
model = dict(
    head=dict(
        type='FasterRCNNHead',
        rpn=dict(
            sizes=[[32], [64], [128], [256], [512]],
            ratios=[0.5, 1.0, 2.0],
            rounding=False,
            low_quality='object',
            min_pos_iou=0.3,
            beta=0.0,
            nms_pre=[2000, 1000],
            nms_post=[1000, 1000],
            min_bbox_size=1e-6,
        ),
        roi=dict(levels=4, sampling_ratio=0, aligned=True, num_samples=512, channels=1024, beta=0.0, min_bbox_size=0.0),
    ),
)
