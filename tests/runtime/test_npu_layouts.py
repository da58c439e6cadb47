"""The structures of rkzoo.runtime.npu_api and rga_api against what a C compiler makes of the
interfaces."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from c_layouts import Fields, Layout, seen_by_arm, seen_by_c, seen_by_us

import rga_standin.build
from npu_standin import build
from rkzoo.runtime import npu_api as api
from rkzoo.runtime import rga_api


@dataclass(frozen=True)
class Interface:
    """`types` are C's names with their fields."""

    header: Path
    types: Fields
    wide: frozenset[str]

    def kind(self, name: str, bits: int) -> Any:
        if name == "rknn_context":
            return api.context_type(bits)
        own = name in rga_api.STRUCTURES
        room = rga_api if own else api
        return room.structure(name if own else name.removeprefix("rknn_"), bits)

    def ours(self, bits: int) -> Layout:
        return seen_by_us(self.types, lambda name: self.kind(name, bits))


def interface(header: Path, structures: Any, prefix: str, **more: tuple[str, ...]) -> Interface:
    types = {prefix + name: tuple(field for field, _ in f) for name, f in structures.items()}
    addresses = (api.POINTER, api.CONTEXT)
    wide = {prefix + n for n, f in structures.items() if any(kind in addresses for _, kind in f)}
    return Interface(header, types | more, frozenset(wide | set(more)))


BOTH = [
    interface(build.HERE / "interface.h", api.STRUCTURES, "rknn_", rknn_context=()),
    interface(rga_standin.build.HERE / "interface.h", rga_api.STRUCTURES, ""),
]
NPU, RGA = BOTH
each = pytest.mark.parametrize("one", BOTH, ids=["npu", "rga"])


@each
def test_64_bits(one: Interface, tmp_path: Path) -> None:
    if ctypes.sizeof(ctypes.c_void_p) == 4:
        pytest.skip("this system is a 32-bit one")
    assert one.ours(64) == seen_by_c(tmp_path, one.header, one.types)


@each
def test_32_bits_as_on_arm(one: Interface, tmp_path: Path) -> None:
    # Arm aligns 64-bit numbers to 8 bytes, which -malign-double makes of a 32-bit PC.
    flags = ("-m32", "-malign-double", "-DSTANDIN_32")
    assert one.ours(32) == seen_by_c(tmp_path, one.header, one.types, *flags)


@each
def test_32_bits_on_arm(one: Interface, tmp_path: Path) -> None:
    assert one.ours(32) == seen_by_arm(tmp_path, one.header, one.types)


@each
def test_the_two_differ_where_an_address_is(one: Interface) -> None:
    wide, narrow = one.ours(64), one.ours(32)
    assert {name for name, field in wide if wide[name, field] != narrow[name, field]} == one.wide


@pytest.mark.parametrize(
    ("one", "pattern", "known"),
    [(NPU, r"\brknn_(\w+)\(", api.FUNCTIONS), (RGA, r"\b(\w+)\(", rga_api.FUNCTIONS)],
    ids=["npu", "rga"],
)
def test_no_function_is_left_out(one: Interface, pattern: str, known: dict[str, Any]) -> None:
    assert set(re.findall(pattern, one.header.read_text())) == set(known)


def test_every_error_of_the_interface_has_a_sentence_and_a_remedy() -> None:
    for code in range(-13, 0):
        error = api.failure(code, "The model did not run.")
        assert error.why.endswith(f"(error {code})")
        assert len(error.fix) > 10
    assert "unknown error code" in api.failure(-99, "It failed.").why
