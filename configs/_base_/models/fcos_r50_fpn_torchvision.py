# FCOS as torchvision's fcos_resnet50_fpn: locations at the top left corners of the cells, no learnable scales, equal
# weights of all boxes in the loss, scores as the square root of class score times centerness.
_base_ = ['./r50_fpn.py']
model = dict(
    backbone=dict(out_strides=[8, 16, 32], norm='frozen'),
    neck=dict(extra='p6p7_p5', relu_before_p7=True),
    head=dict(
        type='FCOSHead',
        stacked_convs=4,
        norm='group',
        conv_bias=True,
        scales=False,
        centerness_on='box',
        settings=dict(
            borders=[64, 128, 256, 512],
            closed=False,
            center_sample_radius=1.5,
            offset=0.0,
            step='torchvision',
            distances='relu',
            box_weight='equal',
            scoring='root',
            score_thr=0.2,
            nms_iou_thr=0.6,
            drop_empty=False,
        ),
    ),
)
