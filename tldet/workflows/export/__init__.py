"""``tldet export``: export a checkpoint to ONNX, OpenVINO or torch.export."""
