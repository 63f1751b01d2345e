# D-FINE-S: HGNetV2-B0, three decoder layers.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(name='hgnetv2_b0', weights='timm:hgnetv2_b0.ssld_stage2_ft_in1k', frozen_stages=-1),
    neck=dict(out_channels=256, expansion=0.5, depth=1),
    head=dict(decoder=dict(layers=3)),
)
