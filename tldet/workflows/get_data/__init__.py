"""``tldet data get``: download, unpack, convert and check a dataset."""
