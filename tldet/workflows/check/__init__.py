"""``tldet check``: find what is wrong with a dataset, and repair what is determined."""
