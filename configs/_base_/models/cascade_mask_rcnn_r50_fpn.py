# Cascade Mask R-CNN on ResNet-50 (Cai and Vasconcelos 2019) with the settings of mmdet's
# cascade-mask-rcnn_r50_fpn_1x_coco.
_base_ = ['./cascade_rcnn_r50_fpn.py']
model = dict(head=dict(mask=dict(pool=14, convs=4, channels=256, targets='mmdet', threshold=0.5, paste='sampled')))
