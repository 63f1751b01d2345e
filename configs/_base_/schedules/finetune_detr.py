# Fine-tuning of D-FINE and RT-DETRv2 from pretrained weights.
_base_ = ['./small.py', '../runtime.py']
optimizer = dict(lr=0.0002, backbone_lr=0.5, weight_decay=0.0001, base_batch=8)
data = dict(loader=dict(batch_size=4, eval_batch_size=4, workers='auto'))
training = dict(clip_norm=0.1, ema=0.99)
