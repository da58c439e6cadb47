"""Fits the latency model to the published speeds and writes src/rkzoo/speed/latency.yaml.

    python scripts/latency_tables.py FOLDER     builds the networks: hours on a slow machine
    python scripts/fit_latency.py               seconds; then rkzoo report zoo

It reads the repository alone: results/latency_terms.yaml (what each network is made of),
results/latency_rows.yaml (which networks a published row runs) and results/published.yaml.
For each chip: milliseconds are a sum of the terms of rkzoo.speed.latency with coefficients that are
not negative, least squares on the relative error over the networks of both number formats at once.
Every network is judged by a fit that it was left out of, and by one that its whole family was left
out of, which makes the interval of its format.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import yaml

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.files import write_text
from rkzoo.speed.latency import TERMS, ChipModel, LatencyModel, Point
from rkzoo.speed.timing import percentile
from rkzoo.workflow.reporting.zoo import Published, read_published

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
CHIPS = ("rk3588", "rk3576", "rk3562", "rk3568")
FORMATS = ("int8", "fp16")
FAMILIES = (
    "yolov5", "yolov6", "yolov7", "yolov8", "yolov10", "yolo11", "yolox", "ppyoloe", "RetinaFace",
    "mobilenet", "resnet", "ppocr", "lprnet", "clip", "mobilesam", "lite-transformer", "wav2vec2",
    "whisper", "zipformer", "yamnet", "mms_tts",
)  # fmt: skip
SHARE = 0.9  # of new networks that the interval is meant to hold
LEAST = 0.05  # of a term, in its unit: what a few small layers on the processor do tells nothing
OUT = ROOT / "src/rkzoo/speed/latency.yaml"
NAMES = tuple(TERMS)


T = TypeVar("T")


class Terms(StrictStruct, frozen=True):
    """latency_terms.yaml: terms of each network, by number format and chip."""

    toolkit: str
    int8: dict[str, dict[str, dict[str, float]]]
    fp16: dict[str, dict[str, dict[str, float]]]


class Row(StrictStruct, frozen=True):
    """Which networks a published row runs, and how often; `seconds`: of a real-time factor."""

    parts: dict[str, int]
    seconds: float = 0.0
    assumes: str = ""


@dataclass(frozen=True)
class Network:
    """A published row on one chip: its terms and its time in milliseconds."""

    name: str
    dtype: str
    terms: dict[str, float]
    published: float
    assumes: str = ""


def family(network: str) -> str:
    return next(name for name in FAMILIES if network.startswith(name))


def networks(terms: Terms, rows: dict[str, Row], speeds: Published, soc: str) -> list[Network]:
    """The published rows of a chip whose networks were built for it."""
    found = []
    for speed in speeds.speeds:
        row = Row({speed.file: 1}) if speed.dtype == "int8" else rows.get(speed.file)
        built = getattr(terms, speed.dtype)
        if row is None or any(soc not in built.get(part, {}) for part in row.parts):
            continue
        ms = 1000 / speed.fps[soc] if soc in speed.fps else 1000 * speed.rtf[soc] * row.seconds
        parts = [(built[part][soc], count) for part, count in row.parts.items()]
        sums = {name: math.fsum(part[name] * count for part, count in parts) for name in NAMES}
        found.append(Network(speed.file, speed.dtype, sums, ms, row.assumes))
    return sorted(found, key=lambda one: (one.dtype, one.name))


def priced(terms: np.ndarray) -> np.ndarray:
    """Which terms occur often and large enough that the published speeds can tell their price."""
    return (terms > LEAST).sum(axis=0) >= 3


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


def fit_chip(terms: np.ndarray, milliseconds: np.ndarray) -> np.ndarray:
    """The fit of all terms. A cycle of a depthwise convolution costs less than others where the
    chip does more of them at once than the compiler counts, and never more."""
    values = fit(terms, milliseconds)
    one, other = NAMES.index("depthwise"), NAMES.index("cycles")
    if values[one] > values[other]:
        terms = terms.copy()
        terms[:, other] += terms[:, one]
        terms[:, one] = 0
        values = fit(terms, milliseconds)
        values[one] = values[other]
    return values


def left_out(terms: np.ndarray, milliseconds: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """What each point is expected to take by a fit without its group."""
    predicted = np.zeros(len(terms))
    for group in set(groups):
        out = np.array([text == group for text in groups])
        predicted[out] = terms[out] @ fit_chip(terms[~out], milliseconds[~out])
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


def chip_models(found: Sequence[Network]) -> dict[str, ChipModel]:
    """The model of a chip in each number format; they share the coefficients."""
    terms = np.array([[one.terms[term] for term in NAMES] for one in found])
    terms = terms * priced(terms)
    truth = np.array([one.published for one in found])
    families = [family(one.name) for one in found]
    alone = left_out(terms, truth, [one.name for one in found])
    whole = left_out(terms, truth, families)
    values = [shown(value) for value in fit_chip(terms, truth)]
    coefficients = dict(zip(NAMES, values, strict=True))
    return {
        dtype: _judged(
            coefficients,
            [
                Point(
                    network=one.name,
                    published=shown(one.published),
                    left_out=shown(alone[i]),
                    family_left_out=shown(whole[i]),
                    terms={term: shown(value) for term, value in one.terms.items()},
                    assumes=one.assumes,
                )
                for i, one in enumerate(found)
                if one.dtype == dtype
            ],
        )
        for dtype in FORMATS
    }


def _judged(coefficients: dict[str, float], points: Sequence[Point]) -> ChipModel:
    errors = sorted(abs(point.left_out / point.published - 1) for point in points)
    family_errors = sorted(abs(point.family_left_out / point.published - 1) for point in points)
    logs = [math.log(point.published / point.left_out) for point in points]
    family_logs = [math.log(point.published / point.family_left_out) for point in points]
    # A new model is seldom one of a family that the fit has seen, so the interval is as wide as
    # the errors of families left out, or of the network alone where that is larger.
    half = width([max(pair, key=abs) for pair in zip(logs, family_logs, strict=True)])
    return ChipModel(
        coefficients=coefficients,
        # Rounded outwards: the widest error is the interval's own edge.
        low=math.floor(math.exp(-half) * 1e4) / 1e4,
        high=math.ceil(math.exp(half) * 1e4) / 1e4,
        median_error=shown(percentile(errors, 0.5)),
        mean_error=shown(np.mean(errors)),
        worst_error=shown(errors[-1]),
        family_median_error=shown(percentile(family_errors, 0.5)),
        coverage=shown(np.mean([abs(log) <= half for log in logs])),
        family_coverage=shown(covered(family_logs, [family(point.network) for point in points])),
        points=tuple(points),
    )


def shown(value: float) -> float:
    return round(float(value), 4)


def read(path: Path, kind: type[T]) -> T:
    return msgspec.convert(yaml.load(path.read_text("utf-8"), yaml.CSafeLoader), kind)


def model(results: Path = RESULTS) -> LatencyModel:
    """The model that the repository's data make."""
    terms = read(results / "latency_terms.yaml", Terms)
    rows = read(results / "latency_rows.yaml", dict[str, Row])
    speeds = read_published(results / "published.yaml")
    fitted = {soc: chip_models(networks(terms, rows, speeds, soc)) for soc in CHIPS}
    return LatencyModel(
        toolkit=terms.toolkit,
        date=date.today().isoformat(),
        source="speed table of airockchip/rknn_model_zoo (inference alone, highest clocks)",
        sha256=speeds.sha256.split()[0],
        chips={soc: models["int8"] for soc, models in fitted.items()},
        fp16={soc: models["fp16"] for soc, models in fitted.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    document = model()
    for dtype in FORMATS:
        for soc, one in document.of(dtype).items():
            print(
                f"{dtype} {soc}: {len(one.points)} networks, left out: median"
                f" {one.median_error:.1%}, mean {one.mean_error:.1%}, worst {one.worst_error:.0%};"
                f" a family left out: median {one.family_median_error:.1%}; interval"
                f" x{one.low:.2f}..{one.high:.2f} holds {one.coverage:.0%} (family"
                f" {one.family_coverage:.0%})\n   {one.coefficients}"
            )
            if dtype == "fp16":
                for p in one.points:
                    print(
                        f"     {p.network:30} {p.published:9.2f} ms, {p.left_out / p.published:.2f}"
                    )
    builtins = msgspec.to_builtins(document)
    text = yaml.safe_dump(builtins, sort_keys=False, width=100)
    write_text(args.output, "# Written by scripts/fit_latency.py; do not edit.\n" + text)


if __name__ == "__main__":
    main()
