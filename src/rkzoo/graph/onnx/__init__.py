"""ONNX graphs as data: read, look at, rewrite, write."""
