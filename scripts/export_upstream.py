"""Exports networks of other projects with random weights, and keeps their structure for the tests.

    python scripts/export_upstream.py            the names, and what each needs
    python scripts/export_upstream.py NAME ...   writes tests/upstream/NAME.onnx.xz

Run it in an environment of its own that has rkzoo and what the network needs: torch and the like
are no dependency of rkzoo's. What it writes is small (no weights) and is committed.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import onnx

from rkzoo.graph.onnx.random_weights import without_weights
from upstream import Network

OUT = Path(__file__).parents[1] / "tests/upstream"


def networks() -> dict[str, Network]:
    """All networks by name."""
    found: dict[str, Network] = {}
    for path in sorted((Path(__file__).parent / "upstream").glob("[a-z]*.py")):
        found.update(import_module(f"upstream.{path.stem}").NETWORKS)
    return found


def main(names: list[str]) -> int:
    known = networks()
    if not names:
        for name, network in sorted(known.items()):
            print(f"{name:32} {network.licence:12} {' '.join(network.needs)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            known[name].make(file)
            content = without_weights(onnx.load(file))
        OUT.mkdir(exist_ok=True)
        (OUT / f"{name}.onnx.xz").write_bytes(content)
        print(f"{name}: {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
