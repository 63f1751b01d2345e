# FCOS on EfficientNet-Lite0: two convolutions per tower; objects of up to 48 pixels are assigned to stride 8.
_base_ = ['./lite0_fpn.py']
model = dict(
    head=dict(
        type='FCOSHead',
        stacked_convs=2,
        norm='group',
        settings=dict(
            borders=[48, 96, 192],
            center_sample_radius=1.5,
            drop_empty=True,
        ),
    ),
)
