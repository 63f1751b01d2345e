"""Exported detectors: ONNX Runtime and OpenVINO (sessions of :mod:`tldet.runtime`), torch.export and TensorRT."""
