"""Runtimes that execute exported detectors: ONNX Runtime, OpenVINO and torch.export files."""
