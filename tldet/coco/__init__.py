"""COCO JSON files: one reader, one set of rules and messages."""
