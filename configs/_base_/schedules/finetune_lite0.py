# Fine-tuning of the Lite0 detectors.
_base_ = ['./small.py', '../runtime.py']
data = dict(loader=dict(batch_size=4, eval_batch_size=8, workers='auto'))
training = dict(clip_norm=10.0, ema=0.99)
