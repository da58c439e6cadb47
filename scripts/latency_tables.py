"""Builds the networks of the published speeds and keeps what the compiler says of them.

    python scripts/latency_tables.py FOLDER [--soc rk3588 ...] [--only NAME ...] [--lprnet FILE]

In INT8 those of latency_networks.py, in FP16 the structures that latency_rows.yaml names
(tests/upstream), and a few of cards. One json for each network, number format and chip in FOLDER;
those that are there already are left alone, so it can be interrupted and started again. About 10 s
a build. At the end the terms of all tables in FOLDER are written to results/latency_terms.yaml,
where networks without a table keep theirs.
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
import yaml
from fit_latency import CHIPS, RESULTS, ROOT, Row, Terms, read, shown
from latency_networks import NETWORKS

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.graph.onnx.random_weights import with_random_weights
from rkzoo.speed.latency import totals
from rkzoo.speed.table import CostTable, cost_table
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv, ensure
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Dtype, InputPlan, Recipe
from rkzoo.workflow.performance.estimate import build_inputs, read_subject
from rkzoo.workflow.request.request import Request

CARDS: dict[str, tuple[str, tuple[int, int] | None]] = {
    "ppocrv4_det": ("ppocr-v4-det", (480, 480)),
    "ppocrv4_rec": ("ppocr-v4-rec", None),
}
"""Networks that are taken from a card with its weights: name in the table -> card and size."""
TERMS = RESULTS / "latency_terms.yaml"


def _parts() -> list[str]:
    """The networks of the FP16 rows."""
    rows = read(RESULTS / "latency_rows.yaml", dict[str, Row])
    return [part for row in rows.values() for part in row.parts]


def _plan(name: str, dtype: Dtype, place: Path) -> BuildInputs:
    file = ROOT / f"tests/upstream/{name}.onnx.xz"
    if name in CARDS:
        card, size = CARDS[name]
        subject = read_subject(card, Request(size=size))
        (place / "model.onnx").write_bytes(subject.graph)
        inputs = subject.inputs
    elif dtype == "fp16":
        model = with_random_weights(file.read_bytes())
        onnx.save(model, place / "model.onnx")
        inputs = tuple(_as_declared(value) for value in model.graph.input)
    else:
        net = NETWORKS[name]()
        onnx.save(net.model(), place / "model.onnx")
        shape = (1, *net.shape["images"])
        inputs = (InputPlan(name="images", shape=shape, mean=(0.0,) * 3, std=(255.0,) * 3),)
    if dtype == "int8":
        _, _, height, width = inputs[0].shape
        # One picture of noise: the ranges that it gives decide no layer's cost.
        noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        np.save(place / "calibration-0.npy", noise)
    return BuildInputs(
        place / "model.onnx", Recipe(soc=CHIPS[0], dtype=dtype, inputs=inputs), place
    )


def _as_declared(value: onnx.ValueInfoProto) -> InputPlan:
    shape = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
    return InputPlan(name=value.name, shape=shape)


def _tables(
    env: ToolkitEnv, name: str, dtype: Dtype, chips: list[str], folder: Path, lprnet: Path | None
) -> None:
    with tempfile.TemporaryDirectory() as place:
        # LPRNet's pooling has to be rewritten, as the vendor's export does.
        subject = read_subject(str(lprnet)) if name == "lprnet" else None
        plan = _plan(name, dtype, Path(place)) if subject is None else None
        for soc in chips:
            start = time.monotonic()
            try:
                if subject is not None:
                    inputs = build_inputs(subject, soc, dtype, DEFAULT_VERSION)
                elif plan is not None:
                    inputs = replace(plan, recipe=msgspec.structs.replace(plan.recipe, soc=soc))
                with ToolkitProcess(env) as process:
                    build_report = process.build(inputs, Path(place) / "out.rknn")
            except RkzooError as error:
                print(f"{name} {soc}: {error}", file=sys.stderr, flush=True)
                continue
            text = msgspec.json.encode(cost_table(build_report, dtype)).decode()
            write_text(folder / f"{name}.{dtype}.{soc}.json", text)
            print(f"{name} {dtype} {soc}: {time.monotonic() - start:.0f} s", flush=True)


def write_terms(folder: Path) -> None:
    """Write the terms of the tables in a folder; networks without one keep theirs."""
    known = msgspec.to_builtins(read(TERMS, Terms)) if TERMS.exists() else {"int8": {}, "fp16": {}}
    for path in sorted(folder.glob("*.json")):
        table = msgspec.json.decode(path.read_bytes(), type=CostTable)
        name = path.name.split(f".{table.dtype}.")[0]
        terms = {term: shown(value) for term, value in totals(table).items()}
        known[table.dtype].setdefault(name, {})[table.soc] = terms
        known["toolkit"] = table.toolkit
    document = {"toolkit": known["toolkit"]} | {
        dtype: {name: by_soc for name, by_soc in sorted(known[dtype].items())}
        for dtype in ("int8", "fp16")
    }
    text = yaml.safe_dump(document, sort_keys=False, width=200, default_flow_style=None)
    write_text(TERMS, "# Written by scripts/latency_tables.py; not by hand.\n" + text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--soc", nargs="+", default=CHIPS)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--lprnet", type=Path, help="lprnet.onnx, which lies nowhere in public")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    env = ensure(DEFAULT_VERSION)
    jobs: list[tuple[str, Dtype]] = [(name, "int8") for name in (*NETWORKS, "ppocrv4_det")]
    jobs += [(name, "fp16") for name in _parts() if name != "lprnet" or args.lprnet]
    for name, dtype in jobs:
        there = {soc for soc in args.soc if (args.folder / f"{name}.{dtype}.{soc}.json").exists()}
        chips = [soc for soc in args.soc if soc not in there]
        if chips and (args.only is None or name in args.only):
            _tables(env, name, dtype, chips, args.folder, args.lprnet)
    write_terms(args.folder)


if __name__ == "__main__":
    main()
