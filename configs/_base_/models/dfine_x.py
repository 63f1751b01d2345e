# D-FINE-X: HGNetV2-B5, 384 channels in the encoder, six decoder layers.
_base_ = ['./dfine.py']
model = dict(
    backbone=dict(name='hgnetv2_b5', weights='timm:hgnetv2_b5.ssld_stage2_ft_in1k', frozen_stages=0),
    neck=dict(out_channels=384, feedforward=2048),
    head=dict(decoder=dict(layers=6, reg_scale=8.0)),
)
