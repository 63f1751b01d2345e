# Recipe of `tldet finetune --model rtdetrv2_r50_m`. Data, input size and training length are set for each run.
# Published weights: box AP 51.9 on COCO val2017 (lyuwenyu/RT-DETR, rtdetrv2_r50vd_m).
_base_ = ['../_base_/models/rtdetrv2_r50_m.py', '../_base_/schedules/finetune_detr.py']
