"""What a user says about a model: how it is fed, its anchors, its labels. Needs no ONNX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from rkzoo.contract.inputs import Color, ImageInput, fed_as
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text
from rkzoo.spelling import unknown

Fit = Literal["letterbox", "pad", "stretch", "crop", "none"]
Anchors = Sequence[tuple[float, float]]


# Fields of ImageInput for each way to fit a picture.
_FITS: dict[Fit | None, dict[str, Any]] = {
    None: {},
    "none": {},
    "letterbox": {"fit": "letterbox", "place": "center", "short": None, "smooth": False},
    "pad": {"fit": "letterbox", "place": "top-left", "short": None, "smooth": False},
    "stretch": {"fit": "stretch", "short": None, "smooth": False},
    "crop": {"fit": "crop"},
}


@dataclass(frozen=True)
class Feed:
    """How the user says that a model is fed, in place of what is recognised or on the card.

    `mean` and `std` are in units of 0..255 and in the order of `color`, one number a channel or
    one for all. Raises RkzooError when they are no numbers that can be used.
    """

    color: Color | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        if self.color not in (None, *get_args(Color)):
            raise unknown(
                f"There is no colour order {self.color!r}.",
                f"A picture is one of {', '.join(get_args(Color))}.",
                str(self.color),
                get_args(Color),
                "Give --color RGB or --color BGR.",
            )
        if self.fit not in _FITS:
            raise unknown(
                f"There is no way to fit a picture called {self.fit!r}.",
                f"It is one of {', '.join(get_args(Fit))}.",
                str(self.fit),
                get_args(Fit),
                "Give --fit letterbox or --fit stretch.",
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and (not values or not all(map(isfinite, values))):
                raise _wrong_count(name, values, 3)
        if self.std is not None and not all(self.std):
            raise RkzooError(
                "A std of 0 cannot be used.",
                "The pixels are divided by it.",
                "Give the divisors of the training, for example --std 255,255,255.",
            )

    def over(self, image: ImageInput) -> ImageInput:
        """`image` with what was said put in its place."""
        fed = fed_as(image, self.color, self.mean, self.std)
        return msgspec.structs.replace(fed, **_FITS[self.fit])

    def refuse(self, why: str) -> None:
        """Raises RkzooError when anything was said where nothing can be changed."""
        if self != AS_IS:
            raise RkzooError(
                "--color, --mean, --std and --fit do not go with this model.",
                why,
                "Leave them out.",
            )


AS_IS = Feed()


def fit_of(image: ImageInput) -> Fit | None:
    """What a user says to have a picture fitted so; None where there is no word for it."""
    names = (name for name in get_args(Fit) if name != "none")
    same = (name for name in names if msgspec.structs.replace(image, **_FITS[name]) == image)
    return next(same, None)


def _wrong_count(name: str, values: Sequence[float], channels: int) -> RkzooError:
    example = ",".join(["0" if name == "mean" else "255"] * channels)
    return RkzooError(
        f"The {name} {','.join(map(str, values))} does not go with this model.",
        f"It is {channels} finite numbers, one for each channel.",
        f"Give for example --{name} {example}.",
    )


_ONE_NUMBER = re.compile(r"[^\s,;:\[\](){}]+")


def parse_anchors(text: str) -> tuple[tuple[float, float], ...]:
    """(w, h) pairs in input pixels, the finest level first.

    `text` holds the numbers with anything of commas, blanks, brackets and line ends between
    them, as Rockchip's anchor files (one number a line), or it is the path of such a file.
    Raises RkzooError when it is neither, or the numbers are no anchors.
    """
    name = text.strip()
    if "\n" not in name and len(name) < 4096 and Path(name).is_file():
        text = read_text(Path(name), errors="replace")
    try:
        numbers = [float(word) for word in _ONE_NUMBER.findall(text)]
    except ValueError as error:
        raise RkzooError(
            "The anchors cannot be read.",
            f"They are no numbers and no file with numbers: {error}.",
            "Give them like --anchors 10,13,16,30,33,23,... or the name of a file with one "
            "number a line.",
        ) from error
    if not numbers or len(numbers) % 2:
        raise RkzooError(
            f"There are {len(numbers)} numbers where anchors come in pairs.",
            "Each anchor is a width and a height.",
            "A usual model has 18 numbers: three anchors for each of strides 8, 16 and 32.",
        )
    if not all(0 < number <= 16384 for number in numbers):
        raise RkzooError(
            "An anchor is not a size in pixels.",
            f"The numbers reach from {min(numbers):g} to {max(numbers):g}.",
            "Give anchors in pixels of the model's input, not in cells and not as fractions.",
        )
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def read_labels(path: Path) -> tuple[str, ...]:
    """One name a line; in a dictionary of single characters, blanks and other line separators are
    characters too. Raises RkzooError when the file cannot be read or is empty."""
    try:
        with os_errors_explained(f"The labels {path} cannot be read."):
            text = read_text(path, "utf-8-sig")
    except UnicodeDecodeError as error:
        raise RkzooError(
            f"The labels {path} cannot be read.",
            "It is no text in UTF-8.",
            "Give a text file, one name a line.",
        ) from error
    signs = tuple(line.rstrip("\r") for line in text.rstrip("\r\n").split("\n"))
    if len(signs) > 1 and max(map(len, signs)) <= 1:
        return signs
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise RkzooError(f"The labels {path} are empty.", "", "Give a text file, one name a line.")
    return names
