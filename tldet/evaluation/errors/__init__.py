"""Analysis of detection errors: pure functions of ground truth and detections."""
