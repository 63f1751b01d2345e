"""Export of detectors as one graph from uint8 images to detections, in ONNX, OpenVINO or torch.export format."""
