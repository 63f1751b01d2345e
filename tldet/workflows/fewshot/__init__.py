"""``tldet fewshot``: base classes first, then all classes from K objects each, over shots and seeds."""
