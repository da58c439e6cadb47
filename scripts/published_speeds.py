"""Writes results/published.yaml: the vendor's table of speeds, as the zoo's page shows it.

    python scripts/published_speeds.py published_fps.csv published_fps_v1_5_0.csv

A table has one line a model and platform. Kept are frames a second and real-time factors on the
chips that rkzoo builds for; cells without a figure and older NPUs are left out. The older table
counts for the chips alone that the newer does not have.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from pathlib import Path

import msgspec
import yaml

from rkzoo.files import write_text
from rkzoo.workflow.reporting.zoo import Published, Speed

SOURCE = "speed table of airockchip/rknn_model_zoo (inference alone, one core, highest clocks)"
OLDER = ", and that of its version 1.5.0 for rv1106"
CHIPS = {
    "RK3588_single_core": ("rk3588",),
    "RK3576_single_core": ("rk3576",),
    "RK3566_RK3568": ("rk3566", "rk3568"),
    "RK3562": ("rk3562",),
}
OLDER_CHIPS = {"RV1106": ("rv1106",)}


def read(table: Path, chips: dict[str, tuple[str, ...]]) -> tuple[Speed, ...]:
    speeds: dict[tuple[str, tuple[int, ...], str], dict[str, dict[str, float]]] = {}
    for row in csv.DictReader(table.read_text("utf-8").splitlines()):
        if row["unit"] not in ("FPS", "RTF") or row["platform"] not in chips:
            continue
        try:
            shape = tuple(json.loads(row["input_shape"]))
        except ValueError:
            shape = ()  # a length of sound, or of text
        found = speeds.setdefault(
            (row["file"], shape, row["dtype"].lower()), {"fps": {}, "rtf": {}}
        )
        values = found[row["unit"].lower()]
        values |= dict.fromkeys(chips[row["platform"]], float(row["value"]))
    return tuple(
        Speed(file=file, shape=shape, dtype=dtype, **{unit: v for unit, v in found.items() if v})
        for (file, shape, dtype), found in speeds.items()
    )


def joined(newer: tuple[Speed, ...], older: tuple[Speed, ...]) -> tuple[Speed, ...]:
    """The newer speeds with those of the older table beside them, by name."""

    def key(speed: Speed) -> tuple[str, tuple[int, ...], str]:
        name = re.sub(r"\(.*?\)|[^a-z0-9]", "", speed.file.lower())  # without "(v3.0)"
        return name, speed.shape, speed.dtype

    more = {key(speed): speed.fps for speed in older}
    return tuple(
        msgspec.structs.replace(speed, fps=speed.fps | more.get(key(speed), {})) for speed in newer
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, metavar="CSV")
    parser.add_argument("older", type=Path, metavar="CSV", nargs="?")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/published.yaml"))
    args = parser.parse_args()
    older = read(args.older, OLDER_CHIPS) if args.older else ()
    digests = [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in (args.table, args.older) if file
    ]
    speeds = joined(read(args.table, CHIPS), older)
    source = SOURCE + (OLDER if older else "")
    table = msgspec.to_builtins(Published(source=source, sha256=" ".join(digests), speeds=speeds))
    table["speeds"] = [
        {
            name: value
            for name, value in (speed | {"shape": list(speed["shape"])}).items()
            if value != {}
        }
        for speed in table["speeds"]
    ]
    text = yaml.safe_dump(table, sort_keys=False, width=100, default_flow_style=None)
    write_text(args.output, "# Written by scripts/published_speeds.py; not by hand.\n" + text)


if __name__ == "__main__":
    main()
