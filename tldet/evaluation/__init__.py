"""Measuring detections against ground truth the way COCO does."""
