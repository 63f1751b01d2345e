# Cascade R-CNN on EfficientNet-Lite0: three narrower box branches.
_base_ = ['./faster_rcnn_lite0_fpn.py']
model = dict(
    head=dict(
        type='CascadeRCNNHead',
        roi=dict(channels=256),
        cascade=dict(
            pos_iou_thr=[0.5, 0.6, 0.7],
            target_stds=[[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]],
            stage_loss_weights=[1.0, 0.5, 0.25],
            average='probabilities',
        ),
    )
)
