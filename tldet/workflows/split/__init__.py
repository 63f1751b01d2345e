"""``tldet split``: split a dataset by class and group, or into folds."""
