# What `tldet finetune --model atss_r50` starts from; data and length are filled in from what it finds.
_base_ = ['../_base_/models/atss_r50_fpn.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
optimizer = dict(lr=0.0001, base_batch=4)
data = dict(loader=dict(batch_size=4, eval_batch_size=4, workers='auto'))
training = dict(clip_norm=10.0)
