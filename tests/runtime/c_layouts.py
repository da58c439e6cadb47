"""What a C compiler makes of structures, to hold ctypes classes against."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from npu_standin import build

Layout = dict[tuple[str, str], tuple[int, int]]
"""By C type and field, offset and size; the whole type with the field `-`."""
Fields = Mapping[str, tuple[str, ...]]


def _asked(types: Fields) -> Iterator[tuple[str, str, str, str]]:
    for name, fields in types.items():
        yield name, "-", "0", f"sizeof({name})"
        for field in fields:
            yield name, field, f"offsetof({name}, {field})", f"sizeof((({name} *)0)->{field})"


def seen_by_c(folder: Path, header: Path, types: Fields, *flags: str) -> Layout:
    """By a program that is compiled and run; skipped where the compiler lacks the flags."""
    lines = [f'printf("{n} {f} %zu %zu\\n", {at}, {size});' for n, f, at, size in _asked(types)]
    lines = [line.replace(", 0, ", ", (size_t)0, ") for line in lines]
    head = f'#include "{header.name}"\n#include <stddef.h>\n#include <stdio.h>\n'
    source, target = folder / "layout.c", folder / "layout"
    source.write_text("\n".join([head, "int main() {", *lines, "}", ""]))
    command = [build.compiler(), f"-I{header.parent}", *flags, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and flags:
        pytest.skip("this compiler does not build for 32 bits (gcc-multilib)")
    assert done.returncode == 0, done.stderr
    told = subprocess.run([target], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in told.splitlines()]
    return {(name, field): (int(at), int(size)) for name, field, at, size in rows}


def seen_by_arm(folder: Path, header: Path, types: Fields) -> Layout:
    """By a compiler for 32-bit Arm; read off the assembler text, since the program would not
    run here."""
    arm = shutil.which("arm-linux-gnueabihf-gcc")
    if not arm:
        pytest.skip("there is no compiler for 32-bit Arm (gcc-arm-linux-gnueabihf)")
    asked = list(_asked(types))
    # One is added to each, since zeros are written in another way.
    listed = ", ".join(f"1 + {at}, 1 + {size}" for *_, at, size in asked)
    source = folder / "arm.c"
    head = f'#include "{header.name}"\n#include <stddef.h>\n'
    source.write_text(f"{head}const unsigned told[] = {{{listed}}};\n")
    command = [arm, "-S", f"-I{header.parent}", str(source), "-o", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [int(word) - 1 for word in re.findall(r"\.word\s+(\d+)", text)]
    assert len(found) == 2 * len(asked)
    keys = [(name, field) for name, field, *_ in asked]
    return dict(zip(keys, zip(found[::2], found[1::2], strict=True), strict=True))


def seen_by_us(types: Fields, kind: Callable[[str], Any]) -> Layout:
    """By ctypes; `kind` gives the class of a C type."""
    found: Layout = {}
    for name, fields in types.items():
        found[name, "-"] = (0, ctypes.sizeof(kind(name)))
        for field in fields:
            place = getattr(kind(name), field)
            found[name, field] = (place.offset, place.size)
    return found
