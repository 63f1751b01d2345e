# GFL on ResNet-50 (Li et al. 2020) as in mmdet 3.3.0 (configs/gfl/gfl_r50_fpn_1x_coco.py).
_base_ = ['./r50_fpn.py']
model = dict(
    backbone=dict(out_strides=[8, 16, 32]),
    neck=dict(extra='p6p7_p5', relu_before_p7=False),
    head=dict(
        type='GFLHead',
        stacked_convs=4,
        norm='group',
        conv_bias=False,
        reg_max=16,
        settings=dict(
            octave_base_scale=8.0,
            topk=9,
            beta=2.0,
            box_weight=2.0,
            dfl_weight=0.25,
            score_thr=0.05,
            nms_pre=1000,
            nms_iou_thr=0.6,
            max_per_img=100,
            drop_empty=True,
        ),
    ),
)
