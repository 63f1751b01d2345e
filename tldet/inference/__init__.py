"""Running a trained detector on images and video."""

OVERLAP = 0.2  # default overlap of tiles, as a fraction of the tile size
