# What `tldet finetune --model faster_rcnn_r50_v2` starts from; data and length are filled in from what it finds.
# Published weights: box AP 46.7 on COCO val2017 (torchvision, fasterrcnn_resnet50_fpn_v2).
_base_ = ['../_base_/models/faster_rcnn_r50_fpn_v2_torchvision.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
model = dict(backbone=dict(norm='frozen'))  # a few images a batch have no statistics worth learning
optimizer = dict(lr=0.0001, base_batch=4)
data = dict(loader=dict(batch_size=4, eval_batch_size=4, workers='auto'))
training = dict(clip_norm=10.0)
