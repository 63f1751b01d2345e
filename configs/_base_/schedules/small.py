# Short fine-tuning: AdamW, a lower learning rate in the pretrained backbone, cosine decay to zero.
optimizer = dict(
    type='AdamW',
    lr=0.0015,
    backbone_lr=0.3,
    weight_decay=0.05,
    base_batch=4,
    norm_decay=0.0,
    bias_decay=0.0,
)
schedule = dict(epochs=12, warmup_steps=20, warmup_factor=0.05, policy='cosine')
