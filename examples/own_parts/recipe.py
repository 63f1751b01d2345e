# Recipe with user components: `tldet finetune --import own_parts --model own_parts/recipe.py --train train.csv ...`
model = dict(
    backbone=dict(type="TinyNet", width=16, out_strides=[8, 16, 32]),
    neck=dict(type="FPN", out_channels=64, extra="none", norm="batch"),
    head=dict(type="PointHead", width=64),
)
data = dict(
    train=dict(
        type="CsvDataset",
        transforms=[
            dict(type="Resize", short=[96, 128], long=192),
            dict(type="Rotate180", p=0.2),
            dict(type="swap_channels", p=0.2),
            dict(type="BlendImages", p=0.2),
            dict(type="A.GaussNoise", std_range=[0.02, 0.05], p=0.2),
        ],
    ),
    val=dict(type="CsvDataset", transforms=[dict(type="Resize", short=96, long=192)]),
    loader=dict(batch_size=4),
)
optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
schedule = dict(steps=100, policy="cosine", warmup_steps=10)
training = dict(clip_norm=10.0)
hooks = [dict(type="LossTable", every=2)]
