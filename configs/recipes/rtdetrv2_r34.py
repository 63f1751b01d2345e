# Recipe of `tldet finetune --model rtdetrv2_r34`. Data, input size and training length are set for each run.
# Published weights: box AP 49.9 on COCO val2017 (lyuwenyu/RT-DETR, rtdetrv2_r34vd).
_base_ = ['../_base_/models/rtdetrv2_r34.py', '../_base_/schedules/finetune_detr.py']
