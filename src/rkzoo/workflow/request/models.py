"""Which models a name stands for: one, or the parts of a pipeline, found but not built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from rkzoo.contract.model import Contract, Head, TensorsHead
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.tasks.prompt.prompted import prompted_contract
from rkzoo.tasks.registry import validate_options
from rkzoo.toolkit.recipe import DEFAULT_VERSION, offered
from rkzoo.workflow.request.model_name import is_pipeline
from rkzoo.workflow.request.prompts import pipeline_prompts, resolve_prompts
from rkzoo.workflow.request.quantization import NATURAL
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.workflow.request.split import split_models
from rkzoo.workflow.request.text_recognizer import reader_for
from rkzoo.zoo.catalogue import card_of_file
from rkzoo.zoo.schema import Card, Int8Recipe


@dataclass(frozen=True)
class Models:
    """The models of a plan, found but not built.

    Attributes:
        name: What the whole is called.
        roles: The role of each in the pipeline; a single model is "model".
        first: The first of them.
        others: Finds those of the other roles, once and one at a time: their graphs are large.
        head: How they work together; None for a pipeline that reads pages.
        prompts: Class names given to the pipeline as a whole.
    """

    name: str
    roles: tuple[str, ...]
    first: ResolvedModel
    others: Iterator[ResolvedModel]
    head: Head | None
    prompts: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, ResolvedModel]]:
        """Role and model, one after another; only once."""
        return zip(self.roles, chain([self.first], self.others), strict=True)

    @property
    def single(self) -> bool:
        """Whether it is one model and no pipeline."""
        return self.roles == ("model",)

    @property
    def answers(self) -> Contract:
        """The contract of the first, with a class for each prompt where it takes some."""
        contract, prompts = self.first.contract, self.first.prompts
        return prompted_contract(contract, prompts) if prompts else contract

    def dtype_of(self, ready: ResolvedModel, dtype: str | None) -> str | None:
        """The number format asked for; a part of several that does not have it keeps its own."""
        kept = dtype is None or self.single or offered(ready.dtypes, dtype)
        return dtype if kept else None


def find_models(
    name: str, request: Request, report: ProgressReporter = SILENT, *, to_run: bool = True
) -> Models:
    """Finds what a name stands for.

    Args:
        name: A card, a pipeline of cards, or a model file that is no .rknn.
        request: What is asked of it; its number format and calibration do not matter here.
        report: Where notes and progress go.
        to_run: False to convert it: prompts may then be missing.

    Returns:
        The models, not built yet.

    Raises:
        RkzooError: One of them cannot be found or read, or an option does not go with them.
    """
    pipeline = is_pipeline(name)
    if pipeline is None:
        ready = find_model(name, request, report, to_run=to_run)
        found, second = ready.recognition, ready.second()
        if found is not None and found.second is not None and second is not None:
            validate_options(found.second.head, request.given())
            behind = found.second
            return Models(Path(name).stem, behind.roles, ready, iter((second,)), behind.head)
        validate_options(ready.contract.head, request.given())
        if ready.recognition is not None and ready.recognition.parts:
            roles = tuple(part.role for part in ready.recognition.parts)
            split = split_models(ready)
            return Models(Path(name).stem, roles, next(split), split, ready.contract.head)
        return Models(Path(name).stem, ("model",), ready, iter(()), ready.contract.head)
    request.feed.refuse(f"{name} consists of several models, each fed in its own way.")
    validate_options(pipeline.head, request.given())
    prompts, request = pipeline_prompts(request, pipeline.head)
    members = _members(pipeline, request.language, report)
    models = (
        find_model(card, request.of_parts(sized=role in ("det", "detector")), report, to_run=to_run)
        for role, card in members.items()
    )
    return Models(pipeline.name, tuple(members), next(models), models, pipeline.head, prompts)


def find_model(
    name: str, request: Request, report: ProgressReporter = SILENT, *, to_run: bool = True
) -> ResolvedModel:
    """One model, its head and prompts as requested. Raises RkzooError."""
    ready = resolve(name, request, report=report)
    choice = request.choice
    choice.check(name, ready.source.sha256, request.toolkit or DEFAULT_VERSION)
    ready = ready.quantised(choice.quantise)
    if _is_built(ready, request, to_run) and choice == NATURAL and not request.plain:
        recipe = _recipe(ready)
        if recipe is not None:
            ready = ready.as_tuned(recipe, request.toolkit or DEFAULT_VERSION)
    if request.plain:
        ready = ready.quantised(ready.by_toolkit())
    texts = ready.contract.texts
    if to_run or texts is None or request.words:
        return replace(ready, prompts=resolve_prompts(request.words, texts, name, report))
    return ready


def _recipe(ready: ResolvedModel) -> Int8Recipe | None:
    """The recipe of the model's card, else the one that was found for this very file, where that
    is taken whole."""
    card = ready.card
    if card is not None and (card.int8 is not None or card.arrays or card.outputs):
        return card.int8
    if isinstance(ready.contract.head, TensorsHead):
        return None
    known = card_of_file(ready.source.sha256)
    return known.int8 if known is not None else None


def _is_built(ready: ResolvedModel, request: Request, to_run: bool) -> bool:
    """Whether INT8 is built of it; ONNX Runtime runs the model as it is."""
    runs_float = to_run and request.on is None and request.runtime in (None, "onnx")
    return (request.dtype or ready.dtypes[0]) == "int8" and not runs_float


def _members(pipeline: Card, language: str | None, report: ProgressReporter) -> dict[str, str]:
    """The cards of a pipeline by role; a language that the text recognizer of a page does not
    know brings another one."""
    if language is None or pipeline.task != "text":
        return pipeline.pipeline
    return pipeline.pipeline | {"rec": reader_for(language, pipeline.pipeline["rec"], report)}
