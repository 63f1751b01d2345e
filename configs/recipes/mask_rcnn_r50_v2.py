# Recipe of `tldet finetune --model mask_rcnn_r50_v2`. Data, input size and training length are set for each run.
# Published weights: box AP 47.4, mask AP 41.8 on COCO val2017 (torchvision, maskrcnn_resnet50_fpn_v2).
_base_ = ['../_base_/models/mask_rcnn_r50_fpn_v2_torchvision.py', '../_base_/schedules/finetune_r50.py']
model = dict(
    backbone=dict(norm='frozen'),  # batch statistics of a few images are too noisy
    head=dict(mask=dict(targets='coverage', paste='sampled')),  # without torchvision's half-pixel shifts
)
evaluation = dict(type='segm')
