# Recipe of `tldet finetune --model faster_rcnn_r50_v2`. Data, input size and training length are set for each run.
# Published weights: box AP 46.7 on COCO val2017 (torchvision, fasterrcnn_resnet50_fpn_v2).
_base_ = ['../_base_/models/faster_rcnn_r50_fpn_v2_torchvision.py', '../_base_/schedules/finetune_r50.py']
model = dict(backbone=dict(norm='frozen'))  # batch statistics of a few images are too noisy
