# Classification from scratch: AdamW, no weight decay on norms and biases, cosine decay after a warm-up, EMA.
optimizer = dict(type='AdamW', lr=0.001, weight_decay=0.05, norm_decay=0.0, bias_decay=0.0)
schedule = dict(epochs=100, warmup_steps=1000, warmup_factor=0.01, policy='cosine')
training = dict(
    seed=0,
    precision='auto',
    clip_norm=5.0,
    ema=0.999,
    validate_every=1,
    checkpoint_every=1,
    max_keep_ckpts=2,
    best_metric='top1',
    log_every=50,
)
