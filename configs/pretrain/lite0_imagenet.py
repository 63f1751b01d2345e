# What `tldet pretrain` starts from; data, backbone, size and length are filled in from what it is given. No published
# accuracy belongs to it.
_base_ = ['../_base_/models/classifier_lite0.py', '../_base_/datasets/imagenet.py', '../_base_/schedules/pretrain.py']
