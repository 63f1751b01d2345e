"""``tldet predict``: run a detector on images, videos and cameras, and write the detections to files."""
