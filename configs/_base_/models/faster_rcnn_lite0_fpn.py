# Faster R-CNN on EfficientNet-Lite0. The second stage samples 128 regions per image, up to half of them positive, so
# that the box branch sees enough objects even in a short run.
_base_ = ['./lite0_fpn.py']
model = dict(
    head=dict(
        type='FasterRCNNHead',
        rpn=dict(
            sizes=[[16, 32], [48, 64], [96, 128], [192, 256]],
            ratios=[0.5, 1.0, 2.0],
            nms_pre=[500, 300],
            nms_post=[500, 300],
        ),
        roi=dict(levels=3, num_samples=128, pos_fraction=0.5, channels=512),
    ),
)
