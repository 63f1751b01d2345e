"""From annotations and image files to batches; nothing here knows of torch modules."""
