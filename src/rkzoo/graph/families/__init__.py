"""Head recognition: one module per model family, which runs the decoding part of the graph."""

import rkzoo.graph.onnx  # noqa: F401 -- raises RkzooError where the package onnx is missing
