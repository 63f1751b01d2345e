# Recipe of `tldet finetune --model fcos_lite0`. Data, input size and training length are set for each run.
_base_ = ['../_base_/models/fcos_lite0_fpn.py', '../_base_/schedules/finetune_lite0.py']
