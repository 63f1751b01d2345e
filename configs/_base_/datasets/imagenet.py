# ImageNet-1k under data/imagenet: train/CLASS/*.JPEG and val/CLASS/*.JPEG.
data = dict(
    train=dict(
        type='ImageFolderDataset',
        folder='data/imagenet/train',
        transforms=[
            dict(type='RandomResizedCrop', size=224, scale=[0.25, 1.0]),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05, p=0.8),
        ],
    ),
    val=dict(
        type='ImageFolderDataset',
        folder='data/imagenet/val',
        transforms=[dict(type='CenterCrop', size=224, share=0.875)],
    ),
    loader=dict(batch_size=64, eval_batch_size=128, workers='auto', group_aspect=False),
)
