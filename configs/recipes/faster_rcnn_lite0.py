# Recipe of `tldet finetune --model faster_rcnn_lite0`. Data, input size and training length are set for each run.
_base_ = ['../_base_/models/faster_rcnn_lite0_fpn.py', '../_base_/schedules/finetune_lite0.py']
