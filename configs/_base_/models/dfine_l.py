# D-FINE-L: HGNetV2-B4, six decoder layers.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(name='hgnetv2_b4', weights='timm:hgnetv2_b4.ssld_stage2_ft_in1k', frozen_stages=0),
    neck=dict(out_channels=256),
    head=dict(decoder=dict(layers=6)),
)
