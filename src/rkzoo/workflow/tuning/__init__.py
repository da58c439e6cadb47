"""Search for quantization settings that keep accuracy in INT8."""
