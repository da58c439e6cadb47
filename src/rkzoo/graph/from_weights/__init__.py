"""ONNX graphs made of weights that come in another form."""

import rkzoo.graph.onnx  # noqa: F401 -- says in words where the package onnx is missing
