"""A graph as the toolkit can build it, and the proof that it is still the same."""

import rkzoo.graph.onnx  # noqa: F401 -- says in words where the package onnx is missing
