"""Exported detectors: sessions of :mod:`tldet.runtime` for ONNX Runtime and OpenVINO, and torch.export files."""
