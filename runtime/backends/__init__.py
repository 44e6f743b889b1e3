"""Runs a fused file: onnxruntime and TensorRT, one module each."""
