# What `tldet finetune --model faster_rcnn_lite0` starts from; data and length are filled in from what it finds.
_base_ = ['../_base_/models/faster_rcnn_lite0_fpn.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
data = dict(loader=dict(batch_size=4, eval_batch_size=8, workers='auto'))
training = dict(clip_norm=10.0, ema=0.99)
