"""Files, locks, memory, devices, seeds and signals."""
