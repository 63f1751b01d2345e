"""``tldet check``: find problems in a dataset, and repair those with an unambiguous correction."""
