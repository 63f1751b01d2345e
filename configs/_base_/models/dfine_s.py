# D-FINE-S (Peng et al. 2024): HGNetV2-B0, three decoder layers. Images in 0..1, as the authors train.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='hgnetv2_b0',
        weights='timm:hgnetv2_b0.ssld_stage2_ft_in1k',
        out_strides=[8, 16, 32],
        frozen_stages=-1,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', out_channels=256, expansion=0.5, depth=1),
    head=dict(type='DFineHead', num_classes=80, decoder=dict(layers=3, points=[3, 6, 3])),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
