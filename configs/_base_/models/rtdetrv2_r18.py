# RT-DETRv2 (Lv et al. 2024) on ResNet-18d: D-FINE's components with CSP blocks and box refinement.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='resnet18d',
        weights='timm:resnet18d.ra2_in1k',
        out_strides=[8, 16, 32],
        frozen_stages=0,
        norm='frozen',
        shortcut_conv=True,
    ),
    neck=dict(type='HybridEncoder', blocks='csp', expansion=0.5),
    head=dict(
        type='DFineHead',
        num_classes=80,
        project_inputs='always',
        decoder=dict(refinement='box', points=4, layers=3),
    ),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
