"""``tldet browse``: an HTML page with the images, labels and statistics of a dataset."""
