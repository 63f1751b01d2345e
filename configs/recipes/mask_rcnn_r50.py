# What `tldet finetune --model mask_rcnn_r50` starts from; data and length are filled in from what it finds.
# Published weights: box AP 37.9, mask AP 34.6 on COCO val2017 (torchvision, maskrcnn_resnet50_fpn).
_base_ = ['../_base_/models/mask_rcnn_r50_fpn_torchvision.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
model = dict(head=dict(mask=dict(targets='coverage', paste='sampled')))  # without torchvision's half-pixel shifts
optimizer = dict(lr=0.0001, base_batch=4)
data = dict(loader=dict(batch_size=4, eval_batch_size=4, workers='auto'))
training = dict(clip_norm=10.0)
evaluation = dict(type='segm')
