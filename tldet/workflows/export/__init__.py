"""``tldet export``: a checkpoint as a file for other runtimes."""
