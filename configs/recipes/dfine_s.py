# Recipe of `tldet finetune --model dfine_s`. Data, input size and training length are set for each run.
# Published weights: box AP 48.5 on COCO val2017 (Peterande/D-FINE, dfine_s_coco).
_base_ = ['../_base_/models/dfine_s.py', '../_base_/schedules/finetune_detr.py']
