# Defaults of `tldet finetune --model dfine_lite0`; data and length are filled in.
_base_ = ['../_base_/models/dfine_lite0.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
optimizer = dict(lr=0.0005, backbone_lr=0.5, weight_decay=0.0001)
data = dict(loader=dict(batch_size=4, eval_batch_size=8, workers='auto'))
training = dict(clip_norm=1.0, ema=0.99)
