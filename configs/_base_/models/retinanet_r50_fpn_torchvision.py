# RetinaNet as torchvision's retinanet_resnet50_fpn: P6 from P5, a ReLU between P6 and P7, rounded anchors whose step is
# the padded size divided by the size of the level. Torchvision divides the losses of each image by its own positives
# (loss_normalizer='image'); here they are divided by a running mean, so that an image without objects does not outweigh
# all others.
_base_ = ['./r50_fpn.py']
model = dict(
    backbone=dict(out_strides=[8, 16, 32], norm='frozen'),
    neck=dict(extra='p6p7_p5', relu_before_p7=True),
    head=dict(
        type='RetinaNetHead',
        stacked_convs=4,
        settings=dict(
            sizes=[[32, 40, 50], [64, 80, 101], [128, 161, 203], [256, 322, 406], [512, 645, 812]],
            ratios=[0.5, 1.0, 2.0],
            rounding=True,
            step='torchvision',
            low_quality='own',
            max_per_img=300,
            drop_empty=False,
        ),
    ),
)
