"""A network's structure without its weights, and the same network with random ones.

What a network is made of weighs little; what it has learnt does not. Tests and the support table
try networks whose weights cannot be had by their structure alone.
"""

from __future__ import annotations

import lzma
import zlib

import numpy as np
import onnx
from onnx import numpy_helper

from rkzoo.errors import RkzooError

# Different values: with fewer it is no weights but shapes, norms, biases, ranges, tables of cells,
# which are part of the structure.
_KEPT = 1024
_MEAN, _STD = "rkzoo.mean", "rkzoo.std"
_MOST = 2**30  # bytes of a structure, unpacked


def without_weights(model: onnx.ModelProto) -> bytes:
    """The graph, compressed, its large float tensors replaced by their shape, mean and deviation.

    Args:
        model: The network.

    Returns:
        xz of a ModelProto that only `with_random_weights` reads.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in _tensors(model.graph):
        values = numpy_helper.to_array(tensor)
        if np.unique(values).size <= _KEPT or not np.issubdtype(values.dtype, np.floating):
            continue
        mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        for field in ("raw_data", "float_data", "int32_data"):
            tensor.ClearField(field)
        for key, value in ((_MEAN, mean), (_STD, std)):
            tensor.external_data.add(key=key, value=repr(value))
    return lzma.compress(model.SerializeToString(), preset=9)


def with_random_weights(content: bytes, seed: int = 0) -> onnx.ModelProto:
    """The network of a structure, its missing weights drawn at random, the same for each seed.

    Args:
        content: What `without_weights` gave.
        seed: Of the weights.

    Returns:
        The network.

    Raises:
        RkzooError: The content is no structure.
    """
    try:
        reader = lzma.LZMADecompressor()
        plain = reader.decompress(content, _MOST)
        if not reader.eof:
            raise EOFError("it is cut off, or too large")
        model: onnx.ModelProto = onnx.ModelProto.FromString(plain)
    except Exception as error:  # lzma and protobuf have errors of their own
        raise RkzooError(
            "This is not the structure of a network.",
            f"It cannot be unpacked: {error}.",
            "Make it again with scripts/export_upstream.py.",
        ) from error
    for tensor in _tensors(model.graph):
        told = {entry.key: float(entry.value) for entry in tensor.external_data}
        if _STD not in told:
            continue
        random = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
        values = random.normal(told[_MEAN], told[_STD], tuple(tensor.dims))
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        del tensor.external_data[:]
        tensor.raw_data = values.astype(kind).tobytes()
    return model


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Weights of a graph and of its constants."""
    constants = [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    return [*graph.initializer, *constants]
