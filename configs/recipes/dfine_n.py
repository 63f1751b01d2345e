# Recipe of `tldet finetune --model dfine_n`. Data, input size and training length are set for each run.
# Published weights: box AP 42.8 on COCO val2017 (Peterande/D-FINE, dfine_n_coco).
_base_ = ['../_base_/models/dfine_n.py', '../_base_/schedules/finetune_detr.py']
