"""Which network a graph is: each family asks the tail of its head."""

import rkzoo.graph.onnx  # noqa: F401 -- says in words where the package onnx is missing
