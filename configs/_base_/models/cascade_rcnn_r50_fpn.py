# Cascade R-CNN on ResNet-50 (Cai and Vasconcelos 2018) with the settings of mmdet's cascade-rcnn_r50_fpn_1x_coco:
# anchors that cross the image border are ignored, smooth L1 losses.
_base_ = ['./faster_rcnn_r50_fpn.py']
model = dict(
    head=dict(
        type='CascadeRCNNHead',
        rpn=dict(allowed_border=0.0, beta=0.1111111111111111, nms_post=[2000, 1000]),
        roi=dict(beta=1.0),
        cascade=dict(
            pos_iou_thr=[0.5, 0.6, 0.7],
            target_stds=[[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]],
            stage_loss_weights=[1.0, 0.5, 0.25],
            average='logits',
        ),
    )
)
