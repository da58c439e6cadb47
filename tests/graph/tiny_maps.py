"""Graphs whose answer is a map or a picture: depth, super-resolution, restoration, anomalies."""

from __future__ import annotations

import numpy as np
import onnx
from tiny_whole import Net


def _larger(net: Net, x: str, mode: str = "linear") -> str:
    scales = net.weight(like=np.array([1, 1, 2, 2], np.float32))
    return net.op("Resize", x, "", scales, mode=mode, coordinate_transformation_mode="half_pixel")


def depth(
    end: str = "relative", *, scalings: int = 3, mode: str = "linear", most: float = 80.0
) -> onnx.ModelProto:
    """The decoder of DPT over an encoder of convolutions, 1x3x64x64 to 1x64x64: features of each
    grid are added to those of the coarser one, scaled up; then its head."""
    net = Net()
    x, skipped = "images", []
    for step in range(scalings + 1):
        x = net.op("Relu", net.conv(x, 3 if step == 0 else 8, 8, strides=[2, 2]))
        skipped.append(x)
    for skip in reversed(skipped[:-1]):
        x = net.op("Add", net.conv(_larger(net, x, mode), 8, 8, 1), skip)
    x = net.op("Relu", net.conv(_larger(net, net.conv(x, 8, 4), mode), 4, 8))
    x = net.conv(x, 8, 1, 1)
    if end == "relative":
        x = net.op("Relu", x)
    elif end == "metric":
        x = net.op("Mul", net.op("Sigmoid", x), net.weight(like=np.float32(most)))
    elif end == "mask":
        x = net.op("Sigmoid", x)
    return net.model([1, 3, 64, 64], net.op("Squeeze", x, net.ints(1)))


def super_resolution(channels: int = 3, scale: int = 3, side: int = 24) -> onnx.ModelProto:
    """ESPCN (https://arxiv.org/abs/1609.05158) with fewer features: convolutions of 5x5, 3x3 and
    3x3, whose channels become the pixels of a larger picture. It sees 4 pixels around each."""
    net = Net()
    x = net.op("Tanh", net.conv("images", channels, 8, 5, pads=[2] * 4))
    x = net.op("Tanh", net.conv(x, 8, 8))
    x = net.op("Sigmoid", net.conv(x, 8, channels * scale**2))
    x = net.op("DepthToSpace", x, blocksize=scale, mode="CRD")
    return net.model([1, channels, side, side], x)


def denoiser(channels: int = 3, side: int = 24) -> onnx.ModelProto:
    """DnCNN's form: what two convolutions see is taken off the picture."""
    net = Net()
    noise = net.conv(net.op("Relu", net.conv("images", channels, 8)), 8, channels)
    return net.model([1, channels, side, side], net.op("Sub", "images", noise))


def stylised(end: float = 255.0, *, scaled: bool = False, opset: int = 17) -> onnx.ModelProto:
    """A style transfer's form: an encoder and a decoder over pixels of 0..255, kept in 0..`end`;
    `scaled`: it divides its picture by 255 first."""
    net = Net()
    byte = net.weight(like=np.float32(255))
    x = net.op("Div", "images", byte) if scaled else "images"
    x = net.op("Relu", net.conv(x, 3, 8, strides=[4, 4]))
    x = net.op("Relu", net.conv(x, 8, 8, strides=[4, 4]))
    for _ in range(2):
        x = net.op("ConvTranspose", x, net.weight(8, 8, 4, 4), strides=[4, 4])
    x = net.op("Mul", net.conv(x, 8, 3), byte)
    if opset < 11:
        x = net.op("Clip", x, min=0.0, max=end)
    else:
        x = net.op("Clip", x, net.weight(like=np.float32(0)), net.weight(like=np.float32(end)))
    return net.model([1, 3, 64, 64], x, opset=opset)


def anomaly(*, marks: bool = True, side: int = 32) -> onnx.ModelProto:
    """STFPM's form (https://arxiv.org/abs/2103.04257): how far the features of two networks are
    apart, over the picture, and the largest distance; `marks`: what exceeds 0.5, as anomalib's
    exports end."""
    net = Net()
    teacher, student = (net.op("Relu", net.conv("images", 3, 8, strides=[4, 4])) for _ in range(2))
    apart = net.op("Sub", teacher, student)
    small = net.op("ReduceMean", net.op("Mul", apart, apart), axes=[1], keepdims=1)
    sizes = net.weight(like=np.array([1, 1, 4, 4], np.float32))
    large = net.op(
        "Resize", small, "", sizes, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    score = net.op("ReduceMax", large, axes=[2, 3], keepdims=0)
    outputs = [score, large]
    if marks:
        half = net.weight(like=np.float32(0.5))
        outputs = [score, net.op("Greater", score, half), large, net.op("Greater", large, half)]
    model = net.model([1, 3, side, side], *outputs, opset=17)
    for info in model.graph.output if marks else ():
        if info.name in (outputs[1], outputs[3]):
            info.type.tensor_type.elem_type = onnx.TensorProto.BOOL
    return model
