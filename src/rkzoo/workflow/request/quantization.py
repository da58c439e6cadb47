"""How a model becomes INT8: what `tune` searches, a recipe keeps, and `convert` does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
import yaml

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text, write_text
from rkzoo.json_values import to_json_value
from rkzoo.spelling import unknown
from rkzoo.toolkit.recipe import Algorithm, Method
from rkzoo.zoo.schema import Int8Recipe

if TYPE_CHECKING:
    from rkzoo.workflow.request.calibration import CalibrationImages

Head = Literal["uncut", "sigmoid", "logits", "bounded"]
_LARGEST = 1 << 20


class QuantizationConfig(StrictStruct, frozen=True):
    """The choices behind an INT8 model.

    `head`: a detection head left on, or cut with its scores in one of three forms. `algorithm`
    None is the one that the card or family asks for. The rest as in the toolkit's Recipe.
    """

    head: Head = "sigmoid"
    algorithm: Algorithm | None = None
    method: Method = "channel"
    auto_hybrid: bool = False
    float_layers: tuple[str, ...] = ()


USUAL = QuantizationConfig()


class TunedRecipe(StrictStruct, frozen=True):
    """What `rkzoo tune` found, as yaml. `sha256` is the model's file, `toolkit` the version whose
    names `float_layers` are, `calibration` the pictures. `measured` tells a reader what for."""

    model: str
    sha256: str
    toolkit: str
    quantise: QuantizationConfig
    calibration: tuple[str, ...] = ()
    measured: dict[str, str | float | int | None] = msgspec.field(default_factory=dict)
    format: Literal[1] = 1


def write_recipe(path: Path, recipe: TunedRecipe) -> None:
    """Writes the yaml that `read_recipe` takes. Raises RkzooError when the disk refuses."""
    note = "# Made by rkzoo tune; use it with: rkzoo convert MODEL --recipe FILE\n"
    write_text(
        path, note + yaml.safe_dump(to_json_value(recipe), sort_keys=False, allow_unicode=True)
    )


def read_recipe(path: Path) -> TunedRecipe:
    """Raises RkzooError when the file is missing, too large, or no recipe."""
    try:
        with os_errors_explained(f"The recipe {path} cannot be read."):
            if path.stat().st_size > _LARGEST:
                raise ValueError("it is larger than a recipe can be")
            document: Any = yaml.safe_load(read_text(path))
        return msgspec.convert(document, TunedRecipe)
    except (ValueError, yaml.YAMLError, msgspec.ValidationError) as error:
        why = " ".join(str(error).split())[:300]
        raise RkzooError(
            f"{path} is no recipe that can be used.", f"{why}.", "Make one with rkzoo tune."
        ) from error


@dataclass(frozen=True)
class Choice:
    """What was asked for: `quantise` itself, or the recipe that it is from."""

    quantise: QuantizationConfig = USUAL
    recipe: TunedRecipe | None = None

    def pictures(self) -> CalibrationImages | None:
        """The calibration pictures of the recipe. Raises RkzooError when some are gone."""
        if self.recipe is None or not self.recipe.calibration:
            return None
        files = [Path(name) for name in self.recipe.calibration]
        gone = [file for file in files if not file.is_file()]
        if gone:
            raise RkzooError(
                f"{len(gone)} calibration pictures of the recipe are gone, {gone[0]} for one.",
                "The INT8 ranges were found with these very pictures.",
                "Put them back, give others with --calib, or tune again.",
            )
        from rkzoo.workflow.request.calibration import from_files

        return from_files(files)

    def check(self, name: str, sha256: str, toolkit: str) -> None:
        """Raises RkzooError when the recipe is for another model, or needs another toolkit."""
        recipe = self.recipe
        if recipe is None:
            return
        if recipe.sha256 != sha256:
            raise RkzooError(
                f"The recipe is for another model than {name}.",
                f"It was made for {recipe.model}, whose content was another.",
                "Tune this model: rkzoo tune.",
            )
        if recipe.quantise.float_layers and recipe.toolkit != toolkit:
            raise RkzooError(
                f"The recipe needs toolkit {recipe.toolkit}.",
                "It names layers, and every toolkit version has its own names for them.",
                f"Use --toolkit {recipe.toolkit}, or tune again.",
            )


NATURAL = Choice()


def of_card(recipe: Int8Recipe, sha256: str, toolkit: str) -> tuple[QuantizationConfig, str]:
    """What a card's recipe asks for, and what of it is left out for this file and toolkit, in a
    sentence: `float_layers` are names that hold for one file in one version."""
    names = ("head", "algorithm", "method", "auto_hybrid", "float_layers")
    config = QuantizationConfig(**{name: getattr(recipe, name) for name in names})
    other = "for another file" if recipe.graph != sha256 else ""
    if recipe.toolkit != toolkit:
        other = other or f"with toolkit {recipe.toolkit}"
    if not recipe.float_layers or not other:
        return config, ""
    left_out = f"Its {len(recipe.float_layers)} tensors in float16 are left out: they were found"
    return msgspec.structs.replace(config, float_layers=()), f"{left_out} {other}."


def choose(
    cut: bool,
    recipe: str | os.PathLike[str] | TunedRecipe | None,
    plain: bool = False,
    algorithm: str | None = None,
) -> Choice:
    """What --no-cut, --recipe, --plain and --algorithm ask for. Raises RkzooError when they
    contradict each other."""
    if algorithm is not None and algorithm not in get_args(Algorithm):
        raise unknown(
            f"There is no algorithm {algorithm!r}.",
            f"There are {', '.join(get_args(Algorithm))}.",
            algorithm,
            get_args(Algorithm),
            "Leave it out for the usual one.",
        )
    if algorithm is not None and recipe is not None:
        raise RkzooError(
            "--algorithm and --recipe contradict each other.",
            "A recipe says the algorithm.",
            "Give one of them.",
        )
    if plain and recipe is not None:
        raise RkzooError(
            "--plain and --recipe contradict each other.",
            "--plain leaves tuning out.",
            "Give one of them.",
        )
    if recipe is None:
        chosen: Any = algorithm
        return Choice(QuantizationConfig(head="sigmoid" if cut else "uncut", algorithm=chosen))
    if not cut:
        raise RkzooError(
            "--no-cut and --recipe contradict each other.",
            "A recipe says what becomes of the head.",
            "Give one of them.",
        )
    read = recipe if isinstance(recipe, TunedRecipe) else read_recipe(Path(recipe))
    return Choice(read.quantise, read)
