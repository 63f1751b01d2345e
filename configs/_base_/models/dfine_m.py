# D-FINE-M (Peng et al. 2024): HGNetV2-B2, four decoder layers. Images in 0..1, as the authors train.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='hgnetv2_b2',
        weights='timm:hgnetv2_b2.ssld_stage2_ft_in1k',
        out_strides=[8, 16, 32],
        frozen_stages=-1,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', out_channels=256, depth=2),
    head=dict(type='DFineHead', num_classes=80, decoder=dict(layers=4, points=[3, 6, 3])),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
