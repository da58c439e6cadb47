"""How long `rkzoo --help` and `rkzoo list` take: median of ten, beside a bare interpreter.

.venv/bin/python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "rkzoo --help": [str(Path(sys.executable).with_name("rkzoo")), "--help"],
    "rkzoo list": [str(Path(sys.executable).with_name("rkzoo")), "list"],
}
ROUNDS = 10


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        # Alternately, so that a busy moment of the machine hits all of them.
        for name, command in COMMANDS.items():
            start = perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(perf_counter() - start)
    for name, values in seconds.items():
        print(f"{name:16} median {statistics.median(values):.3f} s  least {min(values):.3f} s")


if __name__ == "__main__":
    main()
