"""Writes results/published.yaml: the vendor's table of speeds, as the zoo's page shows it.

    python scripts/published_speeds.py published_fps.csv

The table has one line a model and platform. Kept are frames a second on the chips that rkzoo
builds for; real-time factors, cells without a figure and older NPUs are left out.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from pathlib import Path

import msgspec
import yaml

from rkzoo.files import write_text
from rkzoo.workflow.reporting.zoo import Published, Speed

SOURCE = "speed table of airockchip/rknn_model_zoo (inference alone, one core, highest clocks)"
CHIPS = {
    "RK3588_single_core": ("rk3588",),
    "RK3576_single_core": ("rk3576",),
    "RK3566_RK3568": ("rk3566", "rk3568"),
    "RK3562": ("rk3562",),
}


def read(table: Path) -> Published:
    data = table.read_bytes()
    speeds: dict[tuple[str, tuple[int, ...], str], dict[str, float]] = {}
    for row in csv.DictReader(data.decode("utf-8").splitlines()):
        if row["unit"] != "FPS" or row["platform"] not in CHIPS:
            continue
        try:
            shape = tuple(json.loads(row["input_shape"]))
        except ValueError:
            continue  # a length of sound, or of text
        fps = speeds.setdefault((row["file"], shape, row["dtype"].lower()), {})
        fps |= dict.fromkeys(CHIPS[row["platform"]], float(row["value"]))
    return Published(
        source=SOURCE,
        sha256=hashlib.sha256(data).hexdigest(),
        speeds=tuple(
            msgspec.convert({"file": file, "shape": shape, "dtype": dtype, "fps": fps}, Speed)
            for (file, shape, dtype), fps in speeds.items()
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, metavar="CSV")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/published.yaml"))
    args = parser.parse_args()
    table = msgspec.to_builtins(read(args.table))
    table["speeds"] = [speed | {"shape": list(speed["shape"])} for speed in table["speeds"]]
    text = yaml.safe_dump(table, sort_keys=False, width=100, default_flow_style=None)
    write_text(args.output, "# Written by scripts/published_speeds.py; not by hand.\n" + text)


if __name__ == "__main__":
    main()
