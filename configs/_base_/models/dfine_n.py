# D-FINE-N: HGNetV2-B0, two levels of 128 channels, three decoder layers.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(
        name='hgnetv2_b0',
        weights='timm:hgnetv2_b0.ssld_stage2_ft_in1k',
        out_strides=[16, 32],
        frozen_stages=-1,
    ),
    neck=dict(out_channels=128, feedforward=512, expansion=0.34, depth=2),
    head=dict(decoder=dict(channels=128, layers=3, feedforward=512, points=[6, 6])),
)
