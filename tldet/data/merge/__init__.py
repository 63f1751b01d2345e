"""Data sets with different label sets become one: pure functions over parsed COCO files."""
