"""A short card for a model of one's own: written from what was recognised, and read back."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.files import refuse_overwriting_inputs, write_text
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.request.importers.registry import is_model_file
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.zoo.catalogue import SUFFIXES, path_of
from rkzoo.zoo.labels import label_set, label_sets
from rkzoo.zoo.schema import Card


def fed_by(card: Card, contract: Contract) -> Contract:
    """The contract of plain tensors with its pictures fed as the card says.

    Raises:
        RkzooError: The card describes a picture, and the model takes none of so many channels.
    """
    picture = contract.picture
    if card.input is not None:
        if picture is None or picture.channels != card.input.channels:
            takes = f"one of {picture.channels} channels" if picture else "none"
            raise RkzooError(
                f"The card {card.name} describes a picture of {card.input.channels} channels.",
                f"The model takes {takes}.",
                "Mend `input.color`." if picture else "Take `input` out, and name `arrays`.",
            )
        picture = msgspec.structs.replace(card.input, size=picture.size)
    images = {array.name: array.image for array in card.arrays}
    others = tuple(
        msgspec.structs.replace(other, image=images.get(other.name, other.image))
        for other in contract.others
    )
    return msgspec.structs.replace(contract, picture=picture, others=others)


def check_model(model: str) -> None:
    """Raises RkzooError for what is no model file of one's own, which alone needs a card."""
    if is_model_file(model):
        return
    if Path(model).suffix.lower() == ".rknn":
        raise RkzooError(
            f"{model} needs no card.",
            "A .rknn keeps how it is fed and read, since it was converted.",
            "Give the model that it was made from.",
        )
    path = path_of(model)
    raise RkzooError(
        f"{model} has a card already.", f"It is {path}.", "Give a model file, such as an .onnx."
    )


def write_card(ready: ResolvedModel, model: Path, target: Path | None) -> Path:
    """Writes the card of a model that was resolved from a file.

    Args:
        ready: The model, as it is to be fed and read.
        model: Its file.
        target: The .yaml; None is one called after the model in the current folder.

    Returns:
        The .yaml.

    Raises:
        RkzooError: The name cannot be a card's, or the file is there already.
    """
    path = target or Path(f"{_name(model.stem)}.yaml")
    if path.suffix not in SUFFIXES or _name(path.stem) != path.stem:
        raise RkzooError(
            f"{path} cannot be a card's file.",
            "It is called after the card: small letters, digits, dots, dashes and underscores, "
            "then .yaml.",
            f"Use -o {path.with_name(_name(path.stem) + '.yaml')}",
        )
    refuse_overwriting_inputs([path], [model])
    if path.exists():
        raise RkzooError(
            f"{path} is there already.",
            "A card may have been edited by hand.",
            "Remove it, or name another with -o.",
        )
    write_text(path, card_text(ready, path.stem, os.path.relpath(model, path.parent)))
    return path


def _name(stem: str) -> str:
    """The nearest name that a card may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).lstrip("._-") or "model"


def card_text(ready: ResolvedModel, name: str, file: str) -> str:
    """The card as yaml with a comment on what each key may be; `file` is the model's path from
    the card's folder."""
    contract = ready.contract
    plain = isinstance(contract.head, TensorsHead)
    lines = [
        f"# A card: how rkzoo feeds {_value(Path(file).name)} and reads it. Name it in place of",
        f"# the file, for example: rkzoo convert {name}.yaml --soc rk3588 --calib FOLDER",
        _line("name", name, "also the name of this file"),
        _line("title", Path(file).stem),
        _line("file", file, "from this card's folder"),
        _line("task", spec_of(contract.head).name),
        _head(contract, plain),
        *_input(contract.picture),
        *_arrays(contract.others, plain),
        *_outputs(plain),
        *_labels(contract, plain),
        _line("dtypes", list(ready.dtypes), "what may be built, the usual one first"),
        "calibration:  # of INT8",
        _line("  count", 100, "how many of a folder that holds more"),
        _line("  algorithm", ready.algorithm, "mse, normal, kl_divergence or mmse"),
        "  # folder: samples  # where they lie, from this card's folder, when --calib is not given",
    ]
    return "\n".join(lines) + "\n"


def _head(contract: Contract, plain: bool) -> str:
    if plain:
        return _line("head", {"kind": "tensors"}, "outputs as they are, without postprocessing")
    return (
        f"# The head is recognised from the graph: {_value(contract.family)}.\n"
        "# head: {kind: tensors}  # would leave its outputs as they are"
    )


_COMMENTS = {
    "size": "height, width; counts where the graph leaves them free",
    "color": "RGB, BGR, GRAY, RGBA or BGRA, as in training",
    "mean": "the network sees (pixel - mean) / std, of pixels 0..255 in the order of color",
    "fit": "letterbox, stretch, crop (the middle) or line (height scaled, padded on the right)",
}
_ALWAYS = ("size", "color", "mean", "std", "fit")


def _input(image: ImageInput | None) -> list[str]:
    if image is None:
        return []
    rows = [_line(f"  {key}", value, _COMMENTS.get(key, "")) for key, value in _picture(image)]
    return ["input:", *rows]


def _picture(image: ImageInput) -> list[tuple[str, Any]]:
    """What a card says of a picture: what matters, and else what is not as usual."""
    usual = {field.name: field.default for field in msgspec.structs.fields(image)}
    return [
        (key, value)
        for key, value in msgspec.to_builtins(image).items()
        if key in _ALWAYS or getattr(image, key) != usual[key]
    ]


def _arrays(others: tuple[ArrayInput, ...], plain: bool) -> list[str]:
    if not others or not plain:
        return []
    rows = []
    for other in others:
        fields = {"name": other.name, "shape": list(other.shape), "dtype": other.dtype}
        image = {"image": dict(_picture(other.image))} if other.image else {}
        rows.append(f"  - {_value(fields | image)}")
    return [
        "arrays:  # inputs that are no picture, or several at once; their shapes are fixed",
        *rows,
    ]


def _outputs(plain: bool) -> list[str]:
    ends = "# outputs: [NAME]  # tensors at which the model is to end, where not at its own outputs"
    return [ends] if plain else []


def _labels(contract: Contract, plain: bool) -> list[str]:
    text = (
        f"a list, the name of a set ({', '.join(label_sets())}), or a .txt "
        "of one name a line in this card's folder"
    )
    if not contract.labels:
        return [] if plain else [f"# labels: [first, second]  # class names: {text}"]
    known = next((name for name in label_sets() if label_set(name) == contract.labels), None)
    if known:
        return [_line("labels", known, f"class names: {text}")]
    return [f"# Class names: {text}.", _line("labels", list(contract.labels))]


def _line(key: str, value: Any, comment: str = "") -> str:
    return f"{key}: {_value(value)}" + (f"  # {comment}" if comment else "")


def _value(value: Any) -> str:
    """A value as yaml on one line."""
    dumped = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False
    )
    text = str(dumped).removesuffix("\n").removesuffix("\n...")
    # A line break in a text makes it several lines; JSON is yaml, and escapes it.
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text
