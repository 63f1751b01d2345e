# Recipe of `tldet finetune --model faster_rcnn_r50`. Data, input size and training length are set for each run.
# Published weights: box AP 37.0 on COCO val2017 (torchvision, fasterrcnn_resnet50_fpn).
_base_ = ['../_base_/models/faster_rcnn_r50_fpn_torchvision.py', '../_base_/schedules/finetune_r50.py']
