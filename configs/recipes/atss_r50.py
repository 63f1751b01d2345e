# Recipe of `tldet finetune --model atss_r50`. Data, input size and training length are set for each run.
_base_ = ['../_base_/models/atss_r50_fpn.py', '../_base_/schedules/finetune_r50.py']
