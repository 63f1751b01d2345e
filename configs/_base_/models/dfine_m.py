# D-FINE-M: HGNetV2-B2, four decoder layers.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(name='hgnetv2_b2', weights='timm:hgnetv2_b2.ssld_stage2_ft_in1k', frozen_stages=-1),
    neck=dict(out_channels=256, depth=2),
    head=dict(decoder=dict(layers=4)),
)
