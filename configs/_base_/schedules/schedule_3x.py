# The 3x schedule: 36 epochs, learning rate 0.02 for batch size 16, divided by 10 after 27 and 33 epochs (mmdet
# 3.3.0, configs/common/ms_3x_coco.py: 12 epochs of the data repeated three times, milestones 9 and 11).
_base_ = ['schedule_1x.py']
schedule = dict(epochs=36, milestones=[27, 33])
