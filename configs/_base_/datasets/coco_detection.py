# MS-COCO 2017 under data/coco, in the layout of https://cocodataset.org.
data = dict(
    train=dict(
        type='CocoDataset',
        annotations='data/coco/annotations/instances_train2017.json',
        images='data/coco/train2017',
        transforms=[dict(type='Resize', short=800, long=1333), dict(type='HorizontalFlip', p=0.5)],
        keep_empty=False,
    ),
    val=dict(
        type='CocoDataset',
        annotations='data/coco/annotations/instances_val2017.json',
        images='data/coco/val2017',
        transforms=[dict(type='Resize', short=800, long=1333)],
    ),
    loader=dict(batch_size=16, eval_batch_size=8, workers='auto'),
)
