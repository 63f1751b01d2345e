# Defaults of `tldet finetune --model rtdetrv2_r50`; data and length are filled in.
# Published weights: box AP 53.4 on COCO val2017 (lyuwenyu/RT-DETR, rtdetrv2_r50vd).
_base_ = ['../_base_/models/rtdetrv2_r50.py', '../_base_/schedules/small.py', '../_base_/runtime.py']
optimizer = dict(lr=0.0002, backbone_lr=0.5, weight_decay=0.0001, base_batch=8)
data = dict(
    val=dict(transforms=[dict(type='Resize', short=640, long=640)]),
    loader=dict(batch_size=4, eval_batch_size=4, workers='auto'),
)
training = dict(clip_norm=0.1, ema=0.99)
