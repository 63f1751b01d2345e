# D-FINE (Peng et al. 2024). Base of its backbones. Images in 0..1, as the authors train.
model = dict(
    backbone=dict(type='TimmBackbone', out_strides=[8, 16, 32], norm='frozen'),
    neck=dict(type='HybridEncoder'),
    head=dict(type='DFineHead', num_classes=80, decoder=dict(points=[3, 6, 3])),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
