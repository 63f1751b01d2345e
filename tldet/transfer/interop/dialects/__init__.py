"""Other toolkits' names for the same tensors."""
