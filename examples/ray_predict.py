"""Predict on a folder of images with Ray Data, on all machines of a cluster: python ray_predict.py CKPT FOLDER OUT."""

import sys

import ray

from tldet.inference.ray_data import RayPredictor

checkpoint, folder, out = sys.argv[1:]
images = ray.data.read_images(folder, include_paths=True, mode="RGB")
found = images.map_batches(
    RayPredictor,
    fn_constructor_args=[checkpoint],
    fn_constructor_kwargs={"score": 0.3},
    batch_size=16,
    concurrency=1,  # detectors; on GPUs also num_gpus=1
)
found.write_parquet(out)
