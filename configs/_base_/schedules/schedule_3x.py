# The 3x schedule: 36 epochs, learning rate 0.02 for 16 images, a tenth of it after 27 and 33 epochs (mmdet 3.3.0,
# configs/common/ms_3x_coco.py: 12 epochs over the data three times each, milestones 9 and 11).
_base_ = ['schedule_1x.py']
schedule = dict(epochs=36, milestones=[27, 33])
