"""ONNX graphs made of weights that come in another form."""
