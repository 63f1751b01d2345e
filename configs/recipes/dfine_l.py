# Recipe of `tldet finetune --model dfine_l`. Data, input size and training length are set for each run.
# Published weights: box AP 54.0 on COCO val2017 (Peterande/D-FINE, dfine_l_coco).
_base_ = ['../_base_/models/dfine_l.py', '../_base_/schedules/finetune_detr.py']
