"""Classes that a user wants, by name or number, out of those of a model."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.errors import RkzooError
from rkzoo.spelling import unknown


def class_numbers(
    wanted: Sequence[str | int], labels: Sequence[str], count: int
) -> tuple[int, ...]:
    """The numbers of the classes, ascending.

    Args:
        wanted: names (capitals do not count), or numbers from 0.
        labels: the model's class names; may be empty.
        count: how many classes it has.

    Raises:
        RkzooError: the model has no such class; the message names the nearest.
    """
    by_name = {name.casefold(): number for number, name in reversed(list(enumerate(labels)))}
    numbers = set()
    for word in map(str, wanted):
        number = by_name.get(word.casefold())
        if number is None and word.isascii() and word.isdigit():
            number = int(word)
            if number >= count:
                raise RkzooError(
                    f"The model has no class {number}.",
                    f"Its classes are 0 to {count - 1}.",
                    "Count the classes from 0.",
                )
        if number is None:
            shown = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if labels[8:] else "")
            raise unknown(
                f"The model has no class {word!r}.",
                f"It knows {shown}." if labels else "Its classes have no names here.",
                word,
                labels,
                "See all of them with rkzoo info or rkzoo inspect, or give the class's number.",
            )
        numbers.add(number)
    return tuple(sorted(numbers))
