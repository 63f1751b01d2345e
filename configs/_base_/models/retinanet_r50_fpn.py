# RetinaNet on ResNet-50 (Lin et al. 2017) as in mmdet 3.3.0 (configs/_base_/models/retinanet_r50_fpn.py): P6 from C5,
# no ReLU between P6 and P7, anchors of 4 strides times 2^0, 2^(1/3) and 2^(2/3), not rounded.
_base_ = ['./r50_fpn.py']
model = dict(
    backbone=dict(out_strides=[8, 16, 32]),
    neck=dict(extra='p6p7_c5', relu_before_p7=False),
    head=dict(
        type='RetinaNetHead',
        stacked_convs=4,
        settings=dict(
            sizes=[
                [32, 40.3175, 50.7968],
                [64, 80.6349, 101.5937],
                [128, 161.2699, 203.1873],
                [256, 322.5398, 406.3747],
                [512, 645.0796, 812.7493],
            ],
            ratios=[0.5, 1.0, 2.0],
            rounding=False,
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            low_quality='object',
            min_pos_iou=0.0,
            alpha=0.25,
            gamma=2.0,
            box_loss='smooth_l1',
            beta=0.0,
            score_thr=0.05,
            nms_pre=1000,
            nms_iou_thr=0.5,
            max_per_img=100,
            drop_empty=True,
        ),
    ),
)
