"""Training: a plain loop, its schedule, its state and what it writes. It knows losses and metrics, never boxes."""
