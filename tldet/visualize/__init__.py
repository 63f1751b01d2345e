"""Drawing of detections and curves."""
