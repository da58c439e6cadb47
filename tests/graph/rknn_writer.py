"""Writes .rknn containers as RKNN-Toolkit2 lays them out, to test the reader without it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Table = Mapping[int, Any]


@dataclass
class Flat:
    """A FlatBuffer writer that puts every child behind its parent.

    Values of a table: ("B" | "I" | "i", number), a str, a list of tables, or (code, list).
    """

    data: bytearray = field(default_factory=lambda: bytearray(b"\0\0\0\0RKNN"))

    def root(self, table: Table) -> bytes:
        struct.pack_into("<I", self.data, 0, self.table(table))
        return bytes(self.data)

    def _align(self) -> int:
        self.data += bytes(-len(self.data) % 4)
        return len(self.data)

    def table(self, table: Table) -> int:
        fields = max(table, default=-1) + 1
        slots, size = {}, 4
        for number in sorted(table):
            slots[number] = size
            size += 4
        vtable = self._align()
        self.data += struct.pack("<HH", 4 + 2 * fields, size)
        self.data += struct.pack(f"<{fields}H", *(slots.get(n, 0) for n in range(fields)))
        at = self._align()
        self.data += struct.pack("<i", at - vtable) + bytes(size - 4)
        for number, value in table.items():
            self._value(at + slots[number], value)
        return at

    def _value(self, slot: int, value: Any) -> None:
        if isinstance(value, tuple) and not isinstance(value[1], list):
            struct.pack_into("<" + value[0], self.data, slot, value[1])
            return
        struct.pack_into("<I", self.data, slot, self._align() - slot)
        if isinstance(value, str):
            text = value.encode()
            self.data += struct.pack("<I", len(text)) + text + b"\0"
        elif isinstance(value, tuple):
            code, numbers = value
            self.data += struct.pack(f"<I{len(numbers)}{code}", len(numbers), *numbers)
        else:
            start = len(self.data) + 4
            self.data += struct.pack("<I", len(value)) + bytes(4 * len(value))
            for index, child in enumerate(value):
                where = start + 4 * index
                struct.pack_into("<I", self.data, where, self.table(child) - where)


@dataclass
class Sample:
    """A small model: image in, boxes out, with one step on the CPU. `maps` are outputs in place
    of its own: their shapes in the graph and in the NPU."""

    container: int = 6
    custom: str = '{"rkzoo": 1, "name": "猫"}'
    attributes: str = (
        "{'attrs': {'images': {'mean': [0], 'std': [255, 255, 255], 'rgb2bgr': False}}, "
        "'quant_tab': {}}"
    )
    output_shape: tuple[int, ...] = (1, 64, 4, 4)
    native_shape: tuple[int, ...] = (1, 6, 4, 4, 16)
    output_scale: float = 0.0625
    maps: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    compiler: str = "2.5.0(compiler version: 2.5.0 (0123456@2026-09-29T14:54:20))"
    cpu: bool = True

    def graph(self) -> Table:
        scale, zero, size = (10, 11, 12) if self.container == 6 else (6, 7, 8)
        flat = {3: ("I", [1, 4]), 4: ("I", [1, 4])}
        tensors = [
            {2: ("B", 6), 5: "Softmax"},
            {
                0: ("B", 3),
                1: ("B", 64),
                2: ("B", 1),
                3: ("I", [1, 1, 32, 48, 3]),
                4: ("I", [1, 3, 32, 48]),
                5: "images",
                scale: ("f", [0.00390625]),
                zero: ("i", [-128]),
                size: ("I", 4608),
            },
            {0: ("B", 3), 2: ("B", 4), 4: ("I", [64, 3, 3, 3]), 5: "weight", size: ("I", 1728)},
            {0: ("B", 6), 2: ("B", 4), 4: ("I", [64]), 5: "bias", size: ("I", 256)},
            {
                0: ("B", 3),
                1: ("B", 64 if self.native_shape else 0),
                2: ("B", 2),
                3: ("I", list(self.native_shape or self.output_shape)),
                4: ("I", list(self.output_shape)),
                5: "box_8",
                scale: ("f", [self.output_scale]),
                zero: ("i", [-7]),
                size: ("I", 1024),
            },
            {0: ("B", 10), 2: ("B", 2), **flat, 5: "half", size: ("I", 8)},
        ]
        nodes = [
            {1: "InputOperator", 2: "InputOperator:images"},
            {1: "ConvRelu", 2: "Conv:a", 3: ("B", 2)},
            {1: "Softmax", 2: "Softmax:b"} | ({} if self.cpu else {3: ("B", 2)}),
            {1: "OutputOperator", 2: "OutputOperator:box_8"},
        ]
        if self.maps:
            box = tensors[4]
            tensors[4:] = [
                {**box, 3: ("I", list(native)), 4: ("I", list(shape)), 5: name}
                for name, (shape, native) in self.maps.items()
            ]
        return {0: tensors, 1: nodes, 2: ("I", [1]), 3: ("I", list(range(4, len(tensors))))}

    def flatbuffer(self) -> bytes:
        version, platform, framework, custom = (
            (7, 8, 9, 11) if self.container == 6 else (5, 6, 7, 8)
        )
        return Flat().root(
            {
                1: "RKNPU v2",
                2: [self.graph()],
                3: self.attributes,
                version: self.compiler,
                platform: "rk3588",
                framework: "ONNX",
                custom: self.custom,
            }
        )

    def trailer(self) -> dict[str, Any]:
        return {
            "version": "2.5.0",
            "target_platform": ["rk3588"],
            "ori_network_platform": "ONNX",
            "norm_tensor": [{"url": "images", "tensor_id": 0, "size": [1, 3, 32, 48]}],
            "graph": [{"left": "input", "right": "norm_tensor", "right_tensor_id": 0}],
            "unknown": [1, 2, {"three": None}],
        }

    def write(self) -> bytes:
        payload = self.flatbuffer()
        if self.container != 6:
            head = struct.pack("<6I", len(payload), 448, 10, 640, 66048, 1984)
            payload = head + bytes(104) + payload
        text = json.dumps(self.trailer()).encode()
        header = b"RKNN" + bytes(4) + struct.pack("<QQ", self.container, len(payload))
        return header.ljust(64, b"\0") + payload + struct.pack("<Q", len(text)) + text
