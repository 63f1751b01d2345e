"""Running a trained detector on images and video."""

SCORE = 0.3  # default score threshold, in Python and on the command line
OVERLAP = 0.2  # default overlap of tiles, as a fraction of the tile size
