# RT-DETRv2-M (Lv et al. 2024) on ResNet-50d: D-FINE's components with CSP blocks and box refinement. The published
# AP is that of the third of six decoder layers (`eval_idx: 2` in lyuwenyu/RT-DETR, rtdetrv2_r50vd_m_7x_coco.yml).
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='resnet50d',
        weights='timm:resnet50d.ra2_in1k',
        out_strides=[8, 16, 32],
        frozen_stages=0,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', blocks='csp', expansion=0.5),
    head=dict(
        type='DFineHead',
        num_classes=80,
        project_inputs='always',
        decoder=dict(refinement='box', points=4, layers=6, eval_layers=3),
    ),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
