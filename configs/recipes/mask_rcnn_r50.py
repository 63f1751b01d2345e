# Recipe of `tldet finetune --model mask_rcnn_r50`. Data, input size and training length are set for each run.
# Published weights: box AP 37.9, mask AP 34.6 on COCO val2017 (torchvision, maskrcnn_resnet50_fpn).
_base_ = ['../_base_/models/mask_rcnn_r50_fpn_torchvision.py', '../_base_/schedules/finetune_r50.py']
model = dict(head=dict(mask=dict(targets='coverage', paste='sampled')))  # without torchvision's half-pixel shifts
evaluation = dict(type='segm')
