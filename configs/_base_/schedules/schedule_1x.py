# The 1x schedule: 12 epochs, learning rate 0.02 for batch size 16, divided by 10 after 8 and 11 epochs.
optimizer = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001, base_batch=16)
schedule = dict(epochs=12, warmup_steps=500, warmup_factor=0.001, policy='multistep', milestones=[8, 11], gamma=0.1)
