"""Builders of ONNX graphs from weights stored in other formats."""

import rkzoo.graph.onnx  # noqa: F401 -- raises RkzooError where the package onnx is missing
