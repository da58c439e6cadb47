"""Label sets: class names from label_sets/NAME.txt, one per line."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rkzoo.spelling import unknown

FOLDER = Path(__file__).parent / "label_sets"


def label_sets() -> tuple[str, ...]:
    """Names of the label sets, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


def is_label_file(name: str) -> bool:
    """Whether what a card calls its labels is a file of one name a line, and no set's name."""
    return name.endswith(".txt")


@cache
def label_set(name: str) -> tuple[str, ...]:
    """The labels of a set, class 0 first. Raises RkzooError when there is no such set."""
    if name not in label_sets():
        raise unknown(
            f"There is no label set called {name!r}.",
            f"Known sets: {', '.join(label_sets())}.",
            name,
            label_sets(),
            "Write the labels out as a list.",
        )
    return tuple((FOLDER / f"{name}.txt").read_text("utf-8").split("\n")[:-1])
