# Recipe of `tldet finetune --model dfine_x`. Data, input size and training length are set for each run.
# Published weights: box AP 55.8 on COCO val2017 (Peterande/D-FINE, dfine_x_coco).
_base_ = ['../_base_/models/dfine_x.py', '../_base_/schedules/finetune_detr.py']
