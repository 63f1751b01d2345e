"""``tldet merge``: several datasets as one."""
