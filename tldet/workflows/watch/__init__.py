"""``tldet watch``: the state of a training run in the terminal."""
