"""What moves from one task to the next: weights, frozen parts, learning rates."""
