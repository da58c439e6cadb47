"""Readers, analysis and rewriting of model files (ONNX, .rknn, foreign weights)."""
