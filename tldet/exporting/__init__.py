"""Export of detectors: one graph from uint8 images to detections, as ONNX, OpenVINO or torch.export files."""
