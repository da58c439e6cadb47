"""Files of other frameworks, made into ONNX once."""
