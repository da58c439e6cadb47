"""The structures of rkzoo.runtime.npu_api against what a C compiler makes of the interface."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from npu_standin import build
from rkzoo.runtime import npu_api as api

HEADER = build.HERE / "interface.h"


def program() -> str:
    """C that prints `structure field offset size` for every field, and the whole with `-`."""
    lines = ['#include "interface.h"', "#include <stddef.h>", "#include <stdio.h>", "int main() {"]
    for name, fields in api.STRUCTURES.items():
        lines.append(f'printf("{name} - 0 %zu\\n", sizeof(rknn_{name}));')
        lines += [
            f'printf("{name} {field} %zu %zu\\n", offsetof(rknn_{name}, {field}),'
            f" sizeof(((rknn_{name} *)0)->{field}));"
            for field, _ in fields
        ]
    return "\n".join([*lines, 'printf("context - 0 %zu\\n", sizeof(rknn_context));', "}", ""])


def seen_by_c(folder: Path, *flags: str) -> dict[tuple[str, str], tuple[int, int]]:
    source = folder / "layout.c"
    source.write_text(program())
    target = folder / "layout"
    command = [build.compiler(), f"-I{HEADER.parent}", *flags, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and flags:
        pytest.skip("this compiler does not build for 32 bits (gcc-multilib)")
    assert done.returncode == 0, done.stderr
    told = subprocess.run([target], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in told.splitlines()]
    return {(name, field): (int(at), int(size)) for name, field, at, size in rows}


def seen_by_arm(folder: Path, arm: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Read off the assembler text, since the program would not run here."""
    keys, numbers = [("context", "-")], ["0", "sizeof(rknn_context)"]
    for name, fields in api.STRUCTURES.items():
        keys.append((name, "-"))
        numbers += ["0", f"sizeof(rknn_{name})"]
        for field, _ in fields:
            keys.append((name, field))
            numbers.append(f"offsetof(rknn_{name}, {field})")
            numbers.append(f"sizeof(((rknn_{name} *)0)->{field})")
    source = folder / "arm.c"
    # One is added to each, since zeros are written in another way.
    listed = ", ".join(f"1 + {number}" for number in numbers)
    head = '#include "interface.h"\n#include <stddef.h>\n'
    source.write_text(f"{head}const unsigned told[] = {{{listed}}};\n")
    command = [arm, "-S", f"-I{HEADER.parent}", str(source), "-o", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [int(word) - 1 for word in re.findall(r"\.word\s+(\d+)", text)]
    assert len(found) == len(numbers)
    return dict(zip(keys, zip(found[::2], found[1::2], strict=True), strict=True))


def seen_by_us(bits: int) -> dict[tuple[str, str], tuple[int, int]]:
    found = {("context", "-"): (0, ctypes.sizeof(api.context_type(bits)))}
    for name, fields in api.STRUCTURES.items():
        kind = api.structure(name, bits)
        found[name, "-"] = (0, ctypes.sizeof(kind))
        for field, _ in fields:
            place = getattr(kind, field)
            found[name, field] = (place.offset, place.size)
    return found


def test_64_bits(tmp_path: Path) -> None:
    if ctypes.sizeof(ctypes.c_void_p) == 4:
        pytest.skip("this system is a 32-bit one")
    assert seen_by_us(64) == seen_by_c(tmp_path)


def test_32_bits_as_on_arm(tmp_path: Path) -> None:
    # Arm aligns 64-bit numbers to 8 bytes, which -malign-double makes of a 32-bit PC.
    flags = ("-m32", "-malign-double", "-DSTANDIN_32")
    assert seen_by_us(32) == seen_by_c(tmp_path, *flags)


def test_32_bits_on_arm(tmp_path: Path) -> None:
    arm = shutil.which("arm-linux-gnueabihf-gcc")
    if not arm:
        pytest.skip("there is no compiler for 32-bit Arm (gcc-arm-linux-gnueabihf)")
    assert seen_by_us(32) == seen_by_arm(tmp_path, arm)


def test_the_two_differ_where_an_address_is() -> None:
    wide, narrow = seen_by_us(64), seen_by_us(32)
    differing = {name for name, field in wide if wide[name, field] != narrow[name, field]}
    pointers = {
        name
        for name, fields in api.STRUCTURES.items()
        if any(kind in (api.POINTER, api.CONTEXT) for _, kind in fields)
    }
    assert differing == pointers | {"context"}


def test_no_function_is_left_out() -> None:
    declared = set(re.findall(r"\brknn_(\w+)\(", HEADER.read_text()))
    assert declared == set(api.FUNCTIONS)


def test_every_error_of_the_interface_has_a_sentence_and_a_remedy() -> None:
    for code in range(-13, 0):
        error = api.failure(code, "The model did not run.")
        assert error.why.endswith(f"(error {code})")
        assert len(error.fix) > 10
    assert "does not know" in api.failure(-99, "It failed.").why
