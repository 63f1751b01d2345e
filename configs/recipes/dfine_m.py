# Recipe of `tldet finetune --model dfine_m`. Data, input size and training length are set for each run.
# Published weights: box AP 52.3 on COCO val2017 (Peterande/D-FINE, dfine_m_coco).
_base_ = ['../_base_/models/dfine_m.py', '../_base_/schedules/finetune_detr.py']
