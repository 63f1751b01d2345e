# Recipe of `tldet finetune --model fcos_r50`. Data, input size and training length are set for each run.
# Published weights: box AP 39.2 on COCO val2017 (torchvision, fcos_resnet50_fpn).
_base_ = ['../_base_/models/fcos_r50_fpn_torchvision.py', '../_base_/schedules/finetune_r50.py']
# Torchvision's score threshold of 0.2 cuts off the tail of the precision-recall curve.
model = dict(head=dict(settings=dict(score_thr=0.05)))
