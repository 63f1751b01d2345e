"""``tldet data get``: download a dataset, unpack it and convert it to COCO JSON."""
