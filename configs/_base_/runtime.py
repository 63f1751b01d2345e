training = dict(seed=0, precision='auto', validate_every=1, checkpoint_every=1, max_keep_ckpts=2, log_every=50)
evaluation = dict(type='bbox', engine='fast')
hooks = []
