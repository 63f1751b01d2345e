"""``tldet extend``: add classes to a detector."""
