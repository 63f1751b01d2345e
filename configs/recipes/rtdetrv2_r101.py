# Recipe of `tldet finetune --model rtdetrv2_r101`. Data, input size and training length are set for each run.
# Published weights: box AP 54.3 on COCO val2017 (lyuwenyu/RT-DETR, rtdetrv2_r101vd).
_base_ = ['../_base_/models/rtdetrv2_r101.py', '../_base_/schedules/finetune_detr.py']
