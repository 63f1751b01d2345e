# Published: box AP 38.7 on COCO val2017 (mmdet model zoo, configs/fcos/metafile.yml,
# fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco): center sampling, distances in strides,
# centerness on the box tower, GIoU. The backbone is a caffe-style ResNet-50: stride in the first 1x1 convolution,
# BatchNorm folded to scales, BGR input. Weights: open-mmlab://detectron2/resnet50_caffe.
_base_ = [
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
model = dict(
    backbone=dict(
        type='TorchvisionBackbone',
        name='resnet50',
        strided_conv='1x1',
        weights='https://download.openmmlab.com/pretrain/third_party/resnet50_msra-5891d200.pth#sha256=5891d200',
        out_strides=[8, 16, 32],
        frozen_stages=1,
        norm='frozen',
    ),
    neck=dict(type='FPN', out_channels=256, extra='p6p7_p5', relu_before_p7=True),
    head=dict(
        type='FCOSHead',
        num_classes=80,
        stacked_convs=4,
        norm='group',
        conv_bias=True,
        scales=True,
        centerness_on='box',
        settings=dict(
            borders=[64, 128, 256, 512],
            closed=True,
            center_sample_radius=1.5,
            offset=0.5,
            distances='relu',
            alpha=0.25,
            gamma=2.0,
            box_weight='centerness',
            scoring='product',
            score_thr=0.05,
            nms_pre=1000,
            nms_iou_thr=0.6,
            max_per_img=100,
            drop_empty=True,
            eval_loss='mmdet',
        ),
    ),
    preprocess=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr=True),
)
optimizer = dict(lr=0.01, bias_lr=2.0, bias_decay=0.0)
schedule = dict(warmup_factor=0.333333)
