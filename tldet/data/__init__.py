"""From annotations and picture files to batches; nothing here knows of torch modules."""
