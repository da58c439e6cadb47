"""Builds the networks of latency_networks.py (and one of a card) and keeps the compiler's tables.

    python scripts/latency_tables.py FOLDER [--soc rk3588 ...] [--only NAME ...]

One json for each network and chip; those that are there already are left alone, so it can be
interrupted and started again. About 10 s a build.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
from latency_networks import NETWORKS

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.speed.table import cost_table
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv, ensure
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import DEFAULT_VERSION, InputPlan, Recipe
from rkzoo.workflow.performance.estimate import read_subject

CHIPS = ("rk3588", "rk3576", "rk3562", "rk3568")


CARDS = {"ppocrv4_det": ("ppocr-v4-det", (480, 480))}
"""Networks that are taken from a card with its weights: name in the table -> card and size."""


def _plan(name: str, place: Path) -> BuildInputs:
    if name in CARDS:
        card, size = CARDS[name]
        subject = read_subject(card, size)
        (image,) = subject.inputs
        (place / "model.onnx").write_bytes(subject.graph)
    else:
        net = NETWORKS[name]()
        onnx.save(net.model(), place / "model.onnx")
        shape = (1, *net.shape["images"])
        image = InputPlan(name="images", shape=shape, mean=(0.0,) * 3, std=(255.0,) * 3)
    _, _, height, width = image.shape
    # One picture of noise: the ranges that it gives decide no layer's cost.
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    np.save(place / "calibration-0.npy", noise)
    recipe = Recipe(soc=CHIPS[0], dtype="int8", inputs=(image,))
    return BuildInputs(place / "model.onnx", recipe, place)


def _tables(env: ToolkitEnv, name: str, chips: list[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        plan = _plan(name, Path(place))
        for soc in chips:
            start = time.monotonic()
            recipe = msgspec.structs.replace(plan.recipe, soc=soc)
            try:
                with ToolkitProcess(env) as process:
                    build_report = process.build(
                        replace(plan, recipe=recipe), Path(place) / "out.rknn"
                    )
            except RkzooError as error:
                print(f"{name} {soc}: {error}", file=sys.stderr, flush=True)
                continue
            text = msgspec.json.encode(cost_table(build_report, "int8")).decode()
            write_text(folder / f"{name}.{soc}.json", text)
            print(f"{name} {soc}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--soc", nargs="+", default=CHIPS)
    parser.add_argument("--only", nargs="+", default=[*NETWORKS, *CARDS])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    env = ensure(DEFAULT_VERSION)
    for name in args.only:
        chips = [soc for soc in args.soc if not (args.folder / f"{name}.{soc}.json").exists()]
        if chips:
            _tables(env, name, chips, args.folder)


if __name__ == "__main__":
    main()
