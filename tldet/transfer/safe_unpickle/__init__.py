"""Reading of pickled checkpoints without running code from them."""
