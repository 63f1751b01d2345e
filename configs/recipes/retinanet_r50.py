# Recipe of `tldet finetune --model retinanet_r50`. Data, input size and training length are set for each run.
# Published weights: box AP 36.4 on COCO val2017 (torchvision, retinanet_resnet50_fpn).
_base_ = ['../_base_/models/retinanet_r50_fpn_torchvision.py', '../_base_/schedules/finetune_r50.py']
