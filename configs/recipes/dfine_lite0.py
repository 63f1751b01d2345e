# Recipe of `tldet finetune --model dfine_lite0`. Data, input size and training length are set for each run.
_base_ = ['../_base_/models/dfine_lite0.py', '../_base_/schedules/finetune_lite0.py']
optimizer = dict(lr=0.0005, backbone_lr=0.5, weight_decay=0.0001)
training = dict(clip_norm=1.0)
