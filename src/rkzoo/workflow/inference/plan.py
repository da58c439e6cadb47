"""What is to be run, settled before anything is opened.

A plan is plain data: it opens here, in a worker process or on another machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract, Head
from rkzoo.contract.text import PlateHead, TextClsHead, TextDetHead, TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.files import explained
from rkzoo.progress import SILENT, Reporter
from rkzoo.session import Label, Session
from rkzoo.tasks.prompt.prompted import PromptedSession, Prompts, prompted_contract
from rkzoo.tasks.prompt.words import NOTHING, Words
from rkzoo.tasks.registry import spec_of
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.recipe import DEFAULT_VERSION
from rkzoo.workflow.inference.board import BoardModel, contract_of, on_board, open_board
from rkzoo.workflow.request.calibration import Pictures
from rkzoo.workflow.request.model_name import is_pipeline
from rkzoo.workflow.request.options import Anchors, Feed
from rkzoo.workflow.request.pipeline_file import is_pipeline_file, read_pipeline
from rkzoo.workflow.request.prompts import settled
from rkzoo.workflow.request.quantization import NATURAL, Choice
from rkzoo.workflow.request.text_recognizer import reader_for
from rkzoo.zoo.schema import Card

if TYPE_CHECKING:
    from rkzoo.workflow.request.resolve import Resolved


@dataclass(frozen=True)
class Asked:
    """What the user said about a model, beside its name.

    `runtime` None is the natural one. `pictures`, `dtype` and `toolkit` count for the
    simulator only, as does most of `choice`; `words` for a model that is told what to look for.
    """

    runtime: str | None = None
    size: tuple[int, int] | None = None
    labels: Sequence[str] | None = None
    feed: Feed = field(default_factory=Feed)
    anchors: Anchors | None = None
    pictures: Pictures | None = None
    dtype: str | None = None
    toolkit: str | None = None
    choice: Choice = NATURAL
    words: Words = NOTHING
    language: str | None = None


@dataclass(frozen=True)
class Part:
    """One model: a graph for ONNX Runtime, what the simulator builds, or a file for this
    machine's NPU. `prompts` where the contract has texts."""

    contract: Contract
    graph: bytes = b""
    build: BuildInputs | None = None
    board: BoardModel | None = None
    prompts: Prompts | None = None

    @property
    def built(self) -> BuildInputs:
        """What the simulator builds. Raises RkzooError for a part that it does not run."""
        if self.build is None:
            raise RkzooError("There is nothing to build.", code=1)
        return self.build

    @property
    def answers(self) -> Contract:
        """What the opened part promises: with prompts, a class for each of them."""
        return prompted_contract(self.contract, self.prompts) if self.prompts else self.contract


@dataclass(frozen=True)
class Plan:
    """`parts` by their role in a pipeline; a single model has the role "model". `head` says how
    they play together, where it is not a text pipeline; `files` are what they need beside their
    weights, by role; `words` what the pipeline is told as a whole."""

    name: str
    label: Label
    parts: dict[str, Part]
    head: Head | None = None
    files: dict[str, Path] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def plan(model: str | os.PathLike[str], asked: Asked, report: Reporter = SILENT) -> Plan:
    """Finds a model and settles how it is run. Raises RkzooError."""
    name = os.fspath(model)
    _check_runtime(asked.runtime)
    if Path(name).suffix.lower() == ".rknn":
        return _of_rknn(Path(name), asked, report)
    if is_pipeline_file(name):
        return _of_pipeline(Path(name), asked, report)
    if asked.runtime == "board":
        raise RkzooError(
            f"{name} cannot be run on an NPU as it is.",
            "An NPU runs .rknn files only.",
            f"Convert it on a PC with rkzoo convert {name} --soc CHIP, and run the .rknn.",
        )
    label: Label = "simulator" if asked.runtime == "simulator" else "onnx"
    return plan_of(find_models(name, asked, report), label, asked, report)


@dataclass(frozen=True)
class Models:
    """The models of a plan, found but not built. The first is at hand; `others` finds those of
    the roles behind it, once and one at a time, for their graphs are large. `head` and `words` as
    in the plan."""

    name: str
    roles: tuple[str, ...]
    first: Resolved
    others: Iterator[Resolved]
    head: Head | None
    words: tuple[str, ...] = ()

    @property
    def answers(self) -> Contract:
        """What the first promises, as `Part.answers`."""
        contract, prompts = self.first.contract, self.first.prompts
        return prompted_contract(contract, prompts) if prompts else contract


def find_models(name: str, asked: Asked, report: Reporter = SILENT) -> Models:
    """Finds what `name` stands for: a card, a pipeline of them, or a file that is no .rknn.
    Nothing that `asked` says of number formats or calibration is looked at. Raises RkzooError."""
    pipeline = is_pipeline(name)
    if pipeline is None:
        ready = resolved(name, asked, report)
        return Models(Path(name).stem, ("model",), ready, iter(()), ready.contract.head)
    asked.feed.refuse(f"{name} consists of several models, each fed in its own way.")
    told, asked = told_words(asked, pipeline.head)
    members = _members(pipeline, asked.language, report)
    found = (resolved(card, sized(asked, role), report) for role, card in members.items())
    return Models(pipeline.name, tuple(members), next(found), found, pipeline.head, told)


def plan_of(models: Models, label: Label, asked: Asked, report: Reporter = SILENT) -> Plan:
    """The plan for models that are found; it uses them up. Raises RkzooError."""
    parts: dict[str, Part] = {}
    files: dict[str, Path] = {}
    single = models.roles == ("model",)
    for role, ready in zip(models.roles, chain([models.first], models.others), strict=True):
        # A part of several that does not have the dtype keeps its own.
        kept = asked if single or asked.dtype in ready.dtypes else replace(asked, dtype=None)
        parts[role] = part(ready, label, kept, report)
        files |= {kind if single else f"{role}.{kind}": p for kind, p in ready.files.items()}
    return Plan(models.name, label, parts, models.head, files, models.words)


def told_words(asked: Asked, head: Head | None) -> tuple[tuple[str, ...], Asked]:
    """The words that a pipeline is told as a whole, and what was asked of its parts. Raises
    RkzooError for words that another model would read."""
    if "words" not in spec_of(head).options:
        return (), asked
    if asked.words.text_model is not None or asked.words.embeddings is not None:
        raise RkzooError(
            "--text-model and --embeddings do not go with this model.",
            "It reads the words itself.",
            "Leave them out.",
        )
    return asked.words.prompts, replace(asked, words=NOTHING)


def _members(pipeline: Card, language: str | None, report: Reporter) -> dict[str, str]:
    """The cards of a pipeline by role. A language that the reader of a text pipeline does not
    know brings another reader."""
    if language is None or pipeline.task != "text":
        return pipeline.pipeline
    return pipeline.pipeline | {"rec": reader_for(language, pipeline.pipeline["rec"], report)}


def sized(asked: Asked, role: str) -> Asked:
    """What was asked, for one part of a pipeline: only the one that looks at the whole picture
    may have another size."""
    return asked if role == "det" else replace(asked, size=None)


def resolved(name: str, asked: Asked, report: Reporter = SILENT) -> Resolved:
    from rkzoo.workflow.request.resolve import resolve

    ready = resolve(
        name,
        size=asked.size,
        labels=asked.labels,
        feed=asked.feed,
        anchors=asked.anchors,
        report=report,
    )
    asked.choice.check(name, ready.source.sha256, asked.toolkit or DEFAULT_VERSION)
    ready = ready.quantised(asked.choice.quantise)
    return replace(ready, prompts=settled(asked.words, ready.contract.texts, name, report))


def part(ready: Resolved, label: Label, asked: Asked, report: Reporter = SILENT) -> Part:
    """A resolved model as it runs on ONNX Runtime or the simulator."""
    if label == "onnx" or (ready.card is not None and ready.card.cpu):
        graph = ready.graph().SerializeToString()
        return Part(ready.contract, graph=graph, prompts=ready.prompts)
    from rkzoo.workflow.compile.simulate import simulator_inputs

    build = simulator_inputs(
        ready, pictures=asked.pictures, dtype=asked.dtype, toolkit=asked.toolkit, report=report
    )
    return Part(ready.contract, build=build, prompts=ready.prompts)


def _of_rknn(path: Path, asked: Asked, report: Reporter) -> Plan:
    if asked.runtime == "onnx":
        raise RkzooError(
            f"{path} cannot be run by ONNX Runtime.",
            "A .rknn file is for the NPU.",
            "Run the .onnx it was made from, or use --runtime simulator.",
        )
    asked.feed.refuse(f"{path} keeps how it is fed, since it was converted.")
    if asked.anchors is not None:
        raise RkzooError(
            "--anchors does not go with this model.",
            f"{path} keeps its anchors, since it was converted.",
            "Leave it out, or convert the model again with them.",
        )
    board = None if asked.runtime == "simulator" else on_board(path, asked.runtime == "board")
    build = None
    if board is not None:
        contract = contract_of(path)
    else:
        from rkzoo.workflow.compile.simulate import rknn_inputs

        contract, build = rknn_inputs(path, report=report)
    if asked.labels is not None:
        contract = msgspec.structs.replace(contract, labels=tuple(asked.labels))
    prompts = settled(asked.words, contract.texts, str(path), report)
    part = Part(contract, build=build, board=board, prompts=prompts)
    label: Label = "simulator" if board is None else "board"
    return Plan(path.stem, label, {"model": part}, contract.head)


def _of_pipeline(path: Path, asked: Asked, report: Reporter) -> Plan:
    found = read_pipeline(path)
    told, asked = told_words(asked, found.head)
    if asked.labels is not None:
        raise RkzooError(
            f"{path.name} takes no labels.",
            "Each of its models keeps its own, since it was converted.",
            "Leave --labels out.",
        )
    lacks = {"det", "rec"} - found.parts.keys() if found.head is None else ()
    if lacks:
        raise RkzooError(
            f"{path.name} names no model for {' and '.join(sorted(lacks))}.",
            "To read text takes one that finds the lines (det) and one that reads them (rec).",
            "Convert the pipeline again with rkzoo convert.",
        )
    parts: dict[str, Part] = {}
    label: Label = "simulator"
    for role, file in found.parts.items():
        planned = _of_rknn(file, asked, report)
        parts[role], label = planned.parts["model"], planned.label
        wanted = _ROLES.get(role, ())
        if found.head is None and not isinstance(parts[role].contract.head, wanted):
            raise RkzooError(
                f"{file.name} cannot be the {role} of {path.name}.",
                f"It is a {parts[role].contract.family}.",
                "Convert the pipeline again with rkzoo convert.",
            )
    for role, (file, contract) in found.cpu.items():
        with explained(f"{file} cannot be read."):
            parts[role] = Part(contract, graph=file.read_bytes())
    return Plan(found.name, label, parts, found.head, found.files, told)


# What a file is taken for must be what it is: it may come from anywhere.
_ROLES: dict[str, tuple[type[Any], ...]] = {
    "det": (TextDetHead, FaceHead),
    "rec": (TextRecHead, PlateHead),
    "cls": (TextClsHead,),
}


def check_pictures(planned: Plan, verb: str, *, joined: bool = False) -> None:
    """Raises RkzooError for what `verb` cannot work on: a model that takes no pictures, one part
    of a pipeline, or, unless `joined`, a pipeline whose parts play together in their own way."""
    pictures = any(part.contract.picture is not None for part in planned.parts.values())
    own_way = planned.head is not None and len(planned.parts) > 1
    if pictures and (joined or not own_way):
        return
    why = "is a pipeline of its own kind" if pictures else "takes none"
    raise RkzooError(
        f"rkzoo {verb} works on models that take a picture.",
        f"{planned.name} {why}.",
        "rkzoo run tells how long it takes, and rkzoo eval how good it is.",
    )


def on_core(planned: Plan, number: int) -> Plan:
    """The plan for worker `number` of several: on a board each has an NPU core in turn."""
    parts = {
        role: replace(part, board=part.board and part.board.on_core(number))
        for role, part in planned.parts.items()
    }
    return replace(planned, parts=parts)


_PER_CORE = 2
"""While one frame is inside the NPU, another is prepared or decoded."""


def npu_workers(planned: Plan) -> int:
    """How many workers keep every core of the NPU busy; 0 where the plan is for no board."""
    return _PER_CORE * max(
        part.board.available if part.board else 0 for part in planned.parts.values()
    )


def in_floats(planned: Plan) -> Plan:
    """The plan with floats made of pictures and outputs, as the vendor's Python demos do."""
    parts = {
        role: replace(part, board=part.board and replace(part.board, floats=True))
        for role, part in planned.parts.items()
    }
    return replace(planned, parts=parts)


def open_part(part: Part, *, threads: int = 0, report: Reporter = SILENT) -> Session:
    """The part, ready to run as `part.answers` says; `threads` as for OnnxSession."""
    return as_answered(part, _open(part, threads, report))


def as_answered(part: Part, session: Session) -> Session:
    """The opened part with its prompts, which it is then not asked for any more."""
    if part.prompts is None:
        return session
    try:
        return PromptedSession(session, part.contract, part.prompts)
    except BaseException:
        session.close()
        raise


def _open(part: Part, threads: int, report: Reporter) -> Session:
    if part.board is not None:
        return open_board(part.board, part.contract, report)
    if part.build is None:
        from rkzoo.runtime.onnx import OnnxSession

        return OnnxSession(part.graph, part.contract.picture, threads=threads)
    from rkzoo.workflow.compile.simulate import simulate

    return simulate(part.build, report)


def _check_runtime(runtime: str | None) -> None:
    if runtime not in (None, "onnx", "simulator", "board"):
        raise RkzooError(
            f"There is no runtime called {runtime!r}.",
            "rkzoo runs models on onnx, on the simulator and on a board's NPU.",
            "Use --runtime onnx, --runtime simulator or --runtime board.",
        )
