"""Analysis of detection errors, as pure functions of ground truth and detections."""
