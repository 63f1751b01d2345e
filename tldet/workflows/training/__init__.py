"""Training, fine-tuning and pretraining, start to end."""
