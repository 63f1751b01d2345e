"""``tldet split``: split a dataset into training, validation and test splits or folds, stratified by class."""
