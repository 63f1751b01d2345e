"""Evaluation by other protocols than COCO's; each metric has a name of its own."""
