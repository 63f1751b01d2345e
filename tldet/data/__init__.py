"""Datasets, transforms and loading of batches; independent of torch modules."""
