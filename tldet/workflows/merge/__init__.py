"""``tldet merge``: merge datasets with different classes into one."""
