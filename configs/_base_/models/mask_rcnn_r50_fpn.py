# Mask R-CNN on ResNet-50 (He et al. 2017) with the settings of mmdet's mask-rcnn_r50_fpn_1x_coco.
_base_ = ['./faster_rcnn_r50_fpn.py']
model = dict(
    head=dict(
        type='MaskRCNNHead',
        roi=dict(low_quality='object'),
        mask=dict(pool=14, convs=4, channels=256, targets='mmdet', threshold=0.5, paste='sampled'),
    )
)
