"""Studies at an equal budget: job queue, results and report."""
