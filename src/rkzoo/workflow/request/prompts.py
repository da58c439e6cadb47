"""What the user wants to be looked for, in words or as embeddings that are made already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ArrayInput
from rkzoo.contract.model import Head
from rkzoo.errors import RkzooError
from rkzoo.files import open_file
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.prompt.encode import TextEncoder, l2_normalize
from rkzoo.tasks.prompt.prompted import Prompts, fill_slots
from rkzoo.tasks.prompt.tokenizer import ClipTokenizer
from rkzoo.tasks.prompt.words import HOW, Words
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.request.request import Request
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import fetch, weights

TEXT_MODEL = "clip-text"
_VOCABULARY = "vocabulary"


def resolve_prompts(
    prompts: Words, texts: ArrayInput | None, name: str, report: ProgressReporter = SILENT
) -> Prompts | None:
    """The prompts of a model with their embeddings, None for a model that takes no texts.

    Raises RkzooError when words are missing, too many, or not wanted.
    """
    if texts is None:
        if prompts:
            raise RkzooError(
                f"{name} cannot be told in words what to look for.",
                "It finds the classes that it was trained on.",
                "Leave --prompt, --text-model and --embeddings out, or use a YOLO-World.",
            )
        return None
    if not prompts.prompts and prompts.embeddings is None:
        raise RkzooError(
            f"{name} has to be told what to look for.", "It finds what is named in words.", HOW
        )
    slots = texts.shape[1]
    if len(prompts.prompts) > slots:
        # Said before an encoder of a quarter gigabyte is fetched.
        raise RkzooError(
            f"{len(prompts.prompts)} prompts were given, but {name} takes {slots} at the most.",
            "It was exported with so many slots for texts.",
            "Leave some out, or run it once for each part of them.",
        )
    if prompts.embeddings is not None:
        file = _from_file(prompts.embeddings, prompts.prompts)
    else:
        file = _encoded(prompts, report)
    fill_slots(file, texts)  # refuses what does not fit
    return file


def pipeline_prompts(request: Request, head: Head | None) -> tuple[tuple[str, ...], Request]:
    """The prompts of a pipeline as a whole, and the request for its parts. Raises RkzooError for
    embeddings, which only another kind of model reads."""
    if "prompts" not in spec_of(head).options:
        return (), request
    if request.text_model is not None or request.embeddings is not None:
        raise RkzooError(
            "--text-model and --embeddings do not go with this model.",
            "It reads the words itself.",
            "Leave them out.",
        )
    return tuple(request.prompts or ()), replace(request, prompts=None)


def _from_file(path: Path, prompts: tuple[str, ...]) -> Prompts:
    values = read_embeddings(path)
    if prompts and len(prompts) != len(values):
        raise RkzooError(
            f"{path} holds {len(values)} embeddings, but {len(prompts)} prompts were given.",
            "Each prompt is the name of one embedding, in the same order.",
            "Give as many, or no prompt at all.",
        )
    return Prompts(prompts or tuple(f"text {i}" for i in range(len(values))), values)


def read_embeddings(path: Path) -> NDArray[np.float32]:
    """float32 (N, width), rows of length 1, of an .npy of (N, width) or (1, N, width) floats.

    Raises RkzooError for a file that is something else.
    """
    try:
        with open_file(path) as file:
            values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        # What numpy says of a ValueError is advice that nobody should follow.
        why = f"{error}." if isinstance(error, OSError) else "It is no .npy file of numbers."
        raise RkzooError(
            f"The embeddings {path} cannot be read.",
            why,
            "Give an .npy file, as numpy.save writes it.",
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise RkzooError(
            f"The embeddings {path} are no array of floating-point numbers.",
            "A text encoder gives such numbers.",
            "Give an .npy file of (number of texts, width).",
        )
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or not values.size:
        raise RkzooError(
            f"The embeddings {path} have the shape {list(values.shape)}.",
            "There is one row for each text.",
            "Give an .npy file of (number of texts, width).",
        )
    return l2_normalize(values.astype(np.float32), f"A row of {path}")


def _encoded(prompts: Words, report: ProgressReporter) -> Prompts:
    name = prompts.text_model or TEXT_MODEL
    if Path(name).suffix.lower() == ".onnx":
        model = Path(name)
        # The vocabulary is that of every CLIP.
        vocabulary = fetch(find_card(TEXT_MODEL).files[_VOCABULARY], report)
    else:
        card = find_card(name)
        if _VOCABULARY not in card.files:
            raise RkzooError(
                f"{card.name} is no text encoder.",
                "Its card names no vocabulary.",
                f"Use --text-model {TEXT_MODEL}, or the path of an .onnx.",
            )
        files = weights(card, report)
        model, vocabulary = files["model"], files[_VOCABULARY]
    with (
        OnnxSession(model) as session,
        report.task("Reading the prompts"),
    ):
        embeddings = TextEncoder(session, ClipTokenizer.from_file(vocabulary))(prompts.prompts)
    return Prompts(prompts.prompts, embeddings)
