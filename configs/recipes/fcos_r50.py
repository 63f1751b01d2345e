# What `tldet finetune --model fcos_r50` starts from; data and length are filled in from what it finds.
# Published weights: box AP 39.2 on COCO val2017 (torchvision, fcos_resnet50_fpn).
_base_ = ['../_base_/models/fcos_r50_fpn_torchvision.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
# The score of a detection starts lower than torchvision's 0.2, which cuts the tail of the precision-recall curve.
model = dict(head=dict(settings=dict(score=0.05)))
optimizer = dict(lr=0.0001, base_batch=4)
data = dict(loader=dict(batch_size=4, eval_batch_size=4, workers='auto'))
training = dict(clip_norm=10.0)
