# Recipe of `tldet finetune --model cascade_mask_rcnn_r50`. Data, input size and training length are set for each run.
_base_ = ['../_base_/models/cascade_mask_rcnn_r50_fpn.py', '../_base_/schedules/finetune_r50.py']
model = dict(
    head=dict(
        roi=dict(sampling_ratio=2),  # several times faster on CPU than adaptive sampling
        mask=dict(targets='coverage'),
    )
)
evaluation = dict(type='segm')
