# D-FINE-N (Peng et al. 2024): HGNetV2-B0, two levels of 128 channels, three decoder layers. Images in 0..1, as the authors train.
model = dict(
    backbone=dict(
        type='TimmBackbone',
        name='hgnetv2_b0',
        weights='timm:hgnetv2_b0.ssld_stage2_ft_in1k',
        out_strides=[16, 32],
        frozen_stages=-1,
        norm='frozen',
    ),
    neck=dict(type='HybridEncoder', out_channels=128, feedforward=512, expansion=0.34, depth=2),
    head=dict(type='DFineHead', num_classes=80, decoder=dict(channels=128, layers=3, feedforward=512, points=[6, 6])),
    preprocess=dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)
