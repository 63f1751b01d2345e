# Recipe of `tldet finetune --model rtdetrv2_r18`. Data, input size and training length are set for each run.
# Published weights: box AP 47.9 on COCO val2017 (lyuwenyu/RT-DETR, rtdetrv2_r18vd).
_base_ = ['../_base_/models/rtdetrv2_r18.py', '../_base_/schedules/finetune_detr.py']
