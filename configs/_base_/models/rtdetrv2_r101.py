# RT-DETRv2 (Lv et al. 2024) on ResNet-101d: D-FINE's components with CSP blocks and box refinement.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='resnet101d',
        weights='timm:resnet101d.ra2_in1k',
        out_strides=[8, 16, 32],
        frozen_stages=0,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', blocks='csp', out_channels=384, feedforward=2048, expansion=1.0),
    head=dict(
        type='DFineHead',
        num_classes=80,
        project_inputs='always',
        decoder=dict(refinement='box', points=4, layers=6),
    ),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
