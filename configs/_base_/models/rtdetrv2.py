# RT-DETRv2 (Lv et al. 2024): D-FINE's components with CSP blocks and box refinement. Base of its backbones.
model = dict(
    backbone=dict(type='TimmBackbone', out_strides=[8, 16, 32], frozen_stages=0, norm='frozen'),
    neck=dict(type='HybridEncoder', blocks='csp'),
    head=dict(
        type='DFineHead',
        num_classes=80,
        project_inputs='always',
        decoder=dict(refinement='box', points=4),
    ),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
