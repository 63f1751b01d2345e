"""Training loop, schedule, checkpoints and logs; independent of the task, which supplies losses and metrics."""
