"""``tldet predict``: a detector on images and video, from files to files."""
