# ATSS on EfficientNet-Lite0: two convolutions per tower, anchors of 32 to 256 pixels.
_base_ = ['./lite0_fpn.py']
model = dict(
    head=dict(
        type='ATSSHead',
        stacked_convs=2,
        norm='group',
        settings=dict(
            octave_base_scale=4.0,
            topk=9,
            drop_empty=True,
        ),
    ),
)
