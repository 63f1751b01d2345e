"""Data structures: ``Target``, ``Detections``, ``Batch``, and ``LabeledBatch`` for pretraining of classifiers.

Pixel coordinates are continuous: the image spans ``[0, width] x [0, height]`` and a box is ``[x0, y0, x1, y1]``.
Sizes are always ``(height, width)``. Labels are contiguous, ``0..K-1``; category ids are stored elsewhere.
"""
