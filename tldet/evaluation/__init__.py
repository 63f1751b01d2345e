"""COCO evaluation of detections, and statistics of AP."""
