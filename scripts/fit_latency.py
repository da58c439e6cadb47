"""Fits the latency model to the published speeds and writes src/rkzoo/speed/latency.yaml.

    python scripts/latency_tables.py TABLES          # hours on a slow machine, minutes on a fast
    python scripts/fit_latency.py TABLES published_fps.csv

For each chip: milliseconds are a sum of the terms of rkzoo.speed.latency with coefficients that
are not negative, least squares on the relative error. Every network is judged by a fit that it
was left out of, and by one that its whole family was left out of, which makes the interval.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import yaml

from rkzoo.files import write_text
from rkzoo.speed.latency import TERMS, ChipModel, LatencyModel, Point, totals
from rkzoo.speed.table import CostTable
from rkzoo.speed.timing import percentile

COLUMNS = {
    "rk3588": "RK3588_single_core",
    "rk3576": "RK3576_single_core",
    "rk3562": "RK3562",
    "rk3568": "RK3566_RK3568",
}
FAMILIES = (
    "yolov5", "yolov6", "yolov7", "yolov8", "yolov10", "yolo11", "yolox", "ppyoloe", "RetinaFace",
    "mobilenet", "resnet", "ppocr",
)  # fmt: skip
SHARE = 0.9  # of new networks that the interval is meant to hold
OUT = Path(__file__).parents[1] / "src/rkzoo/speed/latency.yaml"
NAMES = tuple(TERMS)


def family(network: str) -> str:
    return next(name for name in FAMILIES if network.startswith(name))


def published(path: Path) -> dict[tuple[str, str], float]:
    """(network, chip) -> milliseconds, of the INT8 rows."""
    chips = {column: soc for soc, column in COLUMNS.items()}
    with path.open(encoding="utf-8") as file:
        return {
            (row["file"], chips[row["platform"]]): 1000 / float(row["value"])
            for row in csv.DictReader(file)
            if row["unit"] == "FPS" and row["dtype"] == "INT8" and row["platform"] in chips
        }


def fit(terms: np.ndarray, milliseconds: np.ndarray) -> np.ndarray:
    """Coefficients >= 0 that make the relative error least: the best of all subsets of terms
    whose plain least squares has no negative one."""
    rows, ones = terms / milliseconds[:, None], np.ones(len(terms))
    best, outcome = np.inf, np.zeros(terms.shape[1])
    for count in range(1, terms.shape[1] + 1):
        for chosen in combinations(range(terms.shape[1]), count):
            some = rows[:, chosen]
            values, *_ = np.linalg.lstsq(some, ones, rcond=None)
            error = float(((some @ values - ones) ** 2).sum())
            if (values >= 0).all() and error < best:
                best, outcome = error, np.zeros(terms.shape[1])
                outcome[list(chosen)] = values
    return outcome


def left_out(terms: np.ndarray, milliseconds: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """What each point is expected to take by a fit without its group."""
    predicted = np.zeros(len(terms))
    for group in set(groups):
        out = np.array([text == group for text in groups])
        predicted[out] = terms[out] @ fit(terms[~out], milliseconds[~out])
    return predicted


def width(errors: Sequence[float]) -> float:
    """The log ratio that SHARE of new points stay within (conformal: one more than there are)."""
    ordered = sorted(abs(error) for error in errors)
    place = math.ceil(SHARE * (len(ordered) + 1)) - 1
    return ordered[min(place, len(ordered) - 1)]


def covered(errors: Sequence[float], groups: Sequence[str]) -> float:
    """The share of points inside an interval that was made without their group."""
    inside = 0
    for error, group in zip(errors, groups, strict=True):
        others = [e for e, g in zip(errors, groups, strict=True) if g != group]
        inside += abs(error) <= width(others)
    return inside / len(errors)


def chip_model(tables: dict[str, CostTable], ms: dict[str, float]) -> ChipModel:
    networks = sorted(set(tables) & set(ms))
    sums = {name: totals(tables[name]) for name in networks}
    terms = np.array([[sums[name][term] for term in NAMES] for name in networks])
    truth = np.array([ms[name] for name in networks])
    families = [family(name) for name in networks]
    alone = left_out(terms, truth, networks)
    whole = left_out(terms, truth, families)
    errors, family_errors = abs(alone / truth - 1), abs(whole / truth - 1)
    logs, family_logs = np.log(truth / alone), np.log(truth / whole)
    # A new model is seldom one of a family that the fit has seen, so the interval is as wide as
    # the errors of families left out.
    half = width(list(family_logs))
    shown: Callable[[float], float] = lambda value: round(float(value), 4)  # noqa: E731
    return ChipModel(
        coefficients={
            name: shown(value) for name, value in zip(NAMES, fit(terms, truth), strict=True)
        },
        low=shown(math.exp(-half)),
        high=shown(math.exp(half)),
        median_error=shown(percentile(sorted(errors), 0.5)),
        mean_error=shown(errors.mean()),
        worst_error=shown(errors.max()),
        family_median_error=shown(percentile(sorted(family_errors), 0.5)),
        coverage=shown(np.mean(abs(logs) <= half)),
        family_coverage=shown(covered(list(family_logs), families)),
        points=tuple(
            Point(
                network=name,
                published=shown(truth[i]),
                left_out=shown(alone[i]),
                family_left_out=shown(whole[i]),
                terms={term: shown(value) for term, value in sums[name].items()},
            )
            for i, name in enumerate(networks)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("published", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    speeds = published(args.published)
    chip_models: dict[str, ChipModel] = {}
    versions = set()
    for soc in COLUMNS:
        tables = {
            path.name.removesuffix(f".{soc}.json"): msgspec.json.decode(
                path.read_bytes(), type=CostTable
            )
            for path in sorted(args.tables.glob(f"*.{soc}.json"))
        }
        versions |= {table.toolkit for table in tables.values()}
        ms = {name: value for (name, chip), value in speeds.items() if chip == soc}
        chip_models[soc] = model = chip_model(tables, ms)
        print(
            f"{soc}: {len(model.points)} networks, left out: median {model.median_error:.1%}, mean"
            f" {model.mean_error:.1%}, worst {model.worst_error:.0%}; a family left out: median"
            f" {model.family_median_error:.1%}; interval x{model.low:.2f}..{model.high:.2f} holds"
            f" {model.coverage:.0%} (family {model.family_coverage:.0%})\n   {model.coefficients}"
        )
    (toolkit,) = versions
    document = LatencyModel(
        toolkit=toolkit,
        date=date.today().isoformat(),
        source="speed table of airockchip/rknn_model_zoo (inference alone, INT8, highest clocks)",
        sha256=hashlib.sha256(args.published.read_bytes()).hexdigest(),
        chips=chip_models,
    )
    text = yaml.safe_dump(msgspec.to_builtins(document), sort_keys=False, width=100)
    write_text(args.output, "# Written by scripts/fit_latency.py; do not edit.\n" + text)


if __name__ == "__main__":
    main()
