"""Running a trained detector on pictures and video."""
