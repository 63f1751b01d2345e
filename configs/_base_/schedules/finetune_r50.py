# Fine-tuning of the R50 detectors.
_base_ = ['./small.py', '../runtime.py']
optimizer = dict(lr=0.0001, base_batch=4)
data = dict(loader=dict(batch_size=4, eval_batch_size=4, workers='auto'))
training = dict(clip_norm=10.0)
