# Recipe of `tldet finetune --model dfine_r50`. Data, input size and training length are set for each run.
_base_ = ['../_base_/models/dfine_r50.py', '../_base_/schedules/finetune_detr.py']
