# Recipe of `tldet pretrain`. Data, backbone, input size and training length are set for each run. No published
# accuracy.
_base_ = ['../_base_/models/classifier_lite0.py', '../_base_/datasets/imagenet.py', '../_base_/schedules/pretrain.py']
