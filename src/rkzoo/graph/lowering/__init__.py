"""Lowering of ONNX graphs for RKNN-Toolkit2, and verification that the outputs are unchanged."""

import rkzoo.graph.onnx  # noqa: F401 -- raises RkzooError where the package onnx is missing
