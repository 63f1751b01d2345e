"""Adding classes to a detector: its data, its config, the run, and what became of the old classes."""
