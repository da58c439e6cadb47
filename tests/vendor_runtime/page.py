"""docs/board.md: what was seen with Rockchip's library, as a page.

    python tests/vendor_runtime/page.py

makes it anew of results/vendor_library.yaml, which the tests write where RKZOO_WRITE_RESULTS is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "results" / "vendor_library.yaml"
PAGE = PROJECT / "docs" / "board.md"

Row = Mapping[str, Any]


def record(
    findings: Row, survey: Row, photos: Row, found: Mapping[str, Any], **about: str
) -> dict[str, Any]:
    """What the tests saw, as plain data."""
    return {
        **about,
        "library": findings["library"],
        "driver": findings["driver"],
        "findings": {key: findings[key] for key in ("blocks", "nchw", "beyond", "spare", "batch")},
        "models": [
            _model(name, told, photos.get(name), found.get(name)) for name, told in survey.items()
        ],
    }


def _model(name: str, told: Row, photo: Row | None, found: Any) -> dict[str, Any]:
    layouts = told["layouts"]
    shares = [s for one in layouts.values() for run in one["equal"] for s in run if s is not None]
    first = told["attributes"]["native_outputs"][0]
    return {
        "model": name,
        "inputs": [
            f"{'x'.join(map(str, one['shape']))} {one['type'].lower()}"
            for one in told["attributes"]["inputs"]
        ],
        "outputs": len(told["attributes"]["outputs"]),
        "native": f"{'x'.join(map(str, first['shape']))} {first['format']}",
        "arrived": sorted({one for layout in layouts.values() for one in layout["arrived"]}),
        "played": len(shares),
        "equal": min(shares) if shares else None,
        "found": None if photo is None else len(photo["results"]),
        "same": None if photo is None else photo["results"] == found,
    }


def page(results: Row) -> str:
    """The page, as Markdown."""
    return "\n".join([*_head(results), *_findings(results["findings"]), *_models(results)]) + "\n"


def _head(results: Row) -> Iterator[str]:
    yield "# On Rockchip's own library"
    yield ""
    yield "<!-- Written by tests/vendor_runtime/page.py; not by hand. -->"
    yield ""
    yield (
        f"rkzoo's board code on librknnrt {results['library'].split()[0]} (the library that the"
        f" PyPI package {results['package']} carries), under qemu, over a driver that computes"
        f" nothing (it calls itself {results['driver']}): on submit it writes what RKNN-Toolkit2"
        f" {results['toolkit']}'s simulator computed to where the register commands say, if the"
        " input stands where they read it. What the library asks, announces, converts and refuses"
        " is real. **Nothing here was measured on a board**, and a newer library may do otherwise:"
        " `RKZOO_VENDOR_LIBRARY=librknnrt.so make test` asks another one."
    )
    yield ""
    yield (
        "The simulator is the toolkit's simulation of INT8, not a model of a chip: the one public"
        " comparison with a real RK3588 found 84 to 92 % of output codes equal, with a largest"
        " difference of 5 codes. `rkzoo convert ... --golden` and `rkzoo check` hold a board"
        " against it."
    )
    yield ""
    yield f"Written on {results['date']} by rkzoo {results['rkzoo']}, for RK3588."
    yield ""


def _findings(found: Row) -> Iterator[str]:
    yield "## What the library does that its interface does not tell"
    yield ""
    blocks = found["blocks"]
    for name, title in (("channels", "INT8"), ("channels-fp16", "FP16")):
        depth = blocks[name][0][2]
        yield f"Blocks of {depth} channels in a native {title} output, by channels:"
        yield ""
        yield from _table(
            ["channels", *(str(one[0]) for one in blocks[name])],
            [["blocks", *(str(one[1]) for one in blocks[name])]],
        )
        yield ""
    nchw, beyond, batch = found["nchw"], found["beyond"], found["batch"]
    yield (
        f"- A 4-D input that `rknn_inputs_set` is given as NCHW: the answer is {nchw['code']} (no"
        f" error), and {100 * nchw['arrived']:.0f} % of its codes are in memory (by chance)."
    )
    yield (
        f"- A number in an INT8 input whose code would be {beyond['asked']}: the answer is"
        f" {beyond['code']}, and {beyond['stored']} is stored. It does not saturate."
    )
    for before, after in found["spare"][:1]:
        yield (
            f"- An output announced as {_shape(before)} is announced as {_shape(after)} once memory"
            " was set in any context of the model; the NPU goes on writing as told first."
        )
    yield (
        f"- A batch whose pictures are announced {batch['announced']} bytes apart is written"
        f" {batch['written']} bytes apart."
    )
    yield ""


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


_ARRIVED = {"read": "where the NPU reads", "memory": "in memory, for the processor"}


def _models(results: Row) -> Iterator[str]:
    models = results["models"]
    yield "## Models"
    yield ""
    yield (
        "*Equal*: the least share of numbers that a session gives as the simulator computed them,"
        " in the NPU's layout and in the plain one; spare channels and cells hold the largest"
        " number. *Found*: results in a photo, all as by the simulator."
    )
    yield ""
    head = ["model", "inputs", "first native output", "inputs are", "outputs played", "equal"]
    rows = [
        [
            one["model"],
            ", ".join(one["inputs"][:3]) + (" ..." if len(one["inputs"]) > 3 else ""),
            one["native"],
            " and ".join(_ARRIVED[word] for word in reversed(one["arrived"])),
            f"{one['played']}" if one["played"] else "none: the processor computes them",
            "" if one["equal"] is None else f"{100 * one['equal']:.0f} %",
            "" if one["found"] is None else f"{one['found']}{'' if one['same'] else ' (others)'}",
        ]
        for one in models
    ]
    yield from _table([*head, "found"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def main() -> None:
    PAGE.write_text(page(yaml.safe_load(RESULTS.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()
