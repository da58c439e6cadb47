"""How long the commands take that should answer at once, beside a bare interpreter: of ten rounds
the median and least by the clock, and the median of the processor's time, which a busy machine
changes less.

.venv/bin/python benchmarks/startup.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

_RKZOO = str(Path(sys.executable).with_name("rkzoo"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import rkzoo": [sys.executable, "-c", "import rkzoo"],
    "rkzoo --help": [_RKZOO, "--help"],
    "rkzoo list": [_RKZOO, "list"],
}
ROUNDS = 10


def _of_children() -> float:
    """Seconds that the processor spent on processes that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    processor: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        # Alternately, so that a busy moment of the machine hits all of them.
        for name, command in COMMANDS.items():
            start, spent = perf_counter(), _of_children()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(perf_counter() - start)
            processor[name].append(_of_children() - spent)
    for name, values in seconds.items():
        print(
            f"{name:16} median {statistics.median(values):.3f} s  least {min(values):.3f} s"
            f"  processor {statistics.median(processor[name]):.3f} s"
        )


if __name__ == "__main__":
    main()
