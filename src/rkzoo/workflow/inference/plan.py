"""What is to be run, settled before anything is opened.

A plan is plain data: it opens here, in a worker process or on another machine.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import BoxHead, Contract, Head, TensorsHead
from rkzoo.contract.text import PlateHead, TextClsHead, TextDetHead, TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, package_digest, read_bytes
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Label, Session
from rkzoo.tasks.detect.classes import class_numbers
from rkzoo.tasks.prompt.prompted import PromptedSession, Prompts, prompted_contract
from rkzoo.tasks.registry import spec_of, validate_options
from rkzoo.tasks.spec import TaskOptions
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.workflow.inference.backend import Backend, backend, nothing_to_build, runtime_of
from rkzoo.workflow.inference.board import on_board
from rkzoo.workflow.inference.onnx_backend import OnnxBackend
from rkzoo.workflow.request.model_name import is_pipeline
from rkzoo.workflow.request.pipeline_file import is_pipeline_file, read_pipeline
from rkzoo.workflow.request.prompts import pipeline_prompts, resolve_prompts
from rkzoo.workflow.request.request import Request

if TYPE_CHECKING:
    from rkzoo.workflow.request.models import Models
    from rkzoo.workflow.request.resolved import ResolvedModel


@dataclass(frozen=True)
class ModelPart:
    """One model: its contract, the runtime that runs it, and its prompts where it takes some."""

    contract: Contract
    backend: Backend
    prompts: Prompts | None = None

    @property
    def build(self) -> BuildInputs | None:
        """What the toolkit builds, where it builds something."""
        return self.backend.build

    @property
    def built(self) -> BuildInputs:
        """As `build`. Raises RkzooError where there is none."""
        if self.build is None:
            raise nothing_to_build()
        return self.build

    @property
    def answers(self) -> Contract:
        """The contract of the opened part: with prompts, a class for each of them."""
        return prompted_contract(self.contract, self.prompts) if self.prompts else self.contract


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        name: What the model is called.
        label: The runtime.
        parts: Models by their role in a pipeline; a single model has the role "model".
        head: How the parts work together; None for a pipeline that reads pages of text.
        files: What the parts need beside their weights, by role.
        options: What is wanted of the answers.
    """

    name: str
    label: Label
    parts: dict[str, ModelPart]
    head: Head | None = None
    files: dict[str, Path] = field(default_factory=dict)
    options: TaskOptions = field(default_factory=TaskOptions)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Class names given to the pipeline as a whole."""
        return self.options.prompts


def plan(
    model: str | os.PathLike[str], request: Request | None = None, report: ProgressReporter = SILENT
) -> Plan:
    """Finds a model and decides how it is run.

    Args:
        model: A card's name, a model file, a .rknn, or the .json of a pipeline of them.
        request: What is asked of it.
        report: Where notes and progress go.

    Returns:
        The plan: plain data, nothing is open yet.

    Raises:
        RkzooError: The model cannot be found, read or run here, or an option does not go
            with it.
    """
    name, request = os.fspath(model), request or Request()
    if Path(name).suffix.lower() == ".rknn":
        return _of_rknn(Path(name), request, report)
    if is_pipeline_file(name):
        return _of_pipeline(Path(name), request, report)
    runtime = runtime_of(request, "onnx")
    if runtime == "board":
        raise RkzooError(
            f"{name} cannot be run on an NPU as it is.",
            "An NPU runs .rknn files only.",
            f"Convert it on a PC with rkzoo convert {name} --soc CHIP, and run the .rknn.",
        )
    is_pipeline(name)  # raises for an unknown name, which needs nothing that reads graphs
    from rkzoo.workflow.request.models import find_models

    return plan_of(find_models(name, request, report), runtime, request, report)


def plan_of(
    models: Models, runtime: str, request: Request, report: ProgressReporter = SILENT
) -> Plan:
    """The plan for models that are found; it uses them up. Raises RkzooError."""
    parts: dict[str, ModelPart] = {}
    files: dict[str, Path] = {}
    for role, ready in models:
        own = replace(request, dtype=models.dtype_of(ready, request.dtype))
        parts[role] = part(ready, runtime, own, report)
        prefix = "" if models.single else f"{role}."
        files |= {f"{prefix}{kind}": path for kind, path in ready.files.items()}
    _check_classes(request, parts)
    options = replace(request.task_options, prompts=models.prompts)
    return Plan(models.name, backend(runtime).label, parts, models.head, files, options)


def part(
    ready: ResolvedModel, runtime: str, request: Request, report: ProgressReporter = SILENT
) -> ModelPart:
    """A float model on a runtime of this PC; one that its card keeps on the processor stays on
    ONNX Runtime. Raises RkzooError."""
    name = "onnx" if ready.cpu else runtime
    opened, contract = backend(name).of_model(ready, request, report), ready.contract
    if request.sizes and request.size is not None:
        known = (contract.input.size, *request.sizes)
        contract = _at_size(ready.name, contract, request.size, known, runtime)
    return ModelPart(contract, opened, ready.prompts)


def _of_rknn(path: Path, request: Request, report: ProgressReporter) -> Plan:
    if request.runtime == "onnx":
        backend("onnx").of_rknn(path, request, report)  # refuses it
    request.feed.refuse(f"{path} keeps how it is fed, since it was converted.")
    for option, given in (
        ("--anchors", request.pairs),
        ("--shape", request.shapes),
        ("--raw", request.raw or None),
        ("--sizes", request.sizes or None),
    ):
        if given is not None:
            raise RkzooError(
                f"{option} does not go with this model.",
                f"{path} keeps what was said of it when it was converted.",
                f"Leave it out, or convert the model again with {option}.",
            )
    runtime = runtime_of(request, "")
    if not runtime:
        runtime = "simulator" if on_board(path, False) is None else "board"
    contract, opened = backend(runtime).of_rknn(path, request, report)
    if request.size is not None:
        file = rknn.read(path)
        shapes = file.shapes.get(file.inputs[0].name, ()) if file.inputs else ()
        known = [(shape[2], shape[3]) for shape in shapes if len(shape) == 4]
        contract = _at_size(str(path), contract, request.size, known, runtime)
    if request.labels is not None:
        named = spec_of(contract.head).name_classes(contract.head, request.labels)
        contract = msgspec.structs.replace(contract, labels=named)
    validate_options(contract.head, request.given())
    prompts = resolve_prompts(request.words, contract.texts, str(path), report)
    options = replace(request.task_options, prompts=())
    parts = {"model": ModelPart(contract, opened, prompts)}
    _check_classes(request, parts)
    return Plan(path.stem, opened.label, parts, contract.head, options=options)


def _at_size(
    name: str,
    contract: Contract,
    size: tuple[int, int],
    sizes: Sequence[tuple[int, int]],
    runtime: str,
) -> Contract:
    """The contract of a build of `sizes`, none where it is for one, at one of them. Raises
    RkzooError where that is none of them."""
    picture = contract.picture
    if picture is None or size not in (sizes or [picture.size]):
        has = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(sizes))
        raise RkzooError(
            f"--size {size[0]}x{size[1]} does not go with this model.",
            f"{name} is built for {has}." if has else f"{name} was built for one size.",
            f"Use one of these, or convert the model again with --sizes {size[0]}x{size[1]}.",
        )
    if runtime == "remote" and size != picture.size:
        raise RkzooError(
            f"--size {size[0]}x{size[1]} does not go with --on.",
            "A board at the other end of a cable opens a file at its first size.",
            "Run it on the board itself.",
        )
    return msgspec.structs.replace(contract, picture=msgspec.structs.replace(picture, size=size))


def _of_pipeline(path: Path, request: Request, report: ProgressReporter) -> Plan:
    pipeline = read_pipeline(path)
    validate_options(pipeline.head, request.given())
    prompts, own = pipeline_prompts(request, pipeline.head)
    if request.labels is not None:
        raise RkzooError(
            f"{path.name} takes no labels.",
            "Each of its models keeps its own, since it was converted.",
            "Leave --labels out.",
        )
    lacks = {"det", "rec"} - pipeline.parts.keys() if pipeline.head is None else ()
    if lacks:
        raise RkzooError(
            f"{path.name} names no model for {' and '.join(sorted(lacks))}.",
            "To read text takes one that finds the lines (det) and one that reads them (rec).",
            "Convert the pipeline again with rkzoo convert.",
        )
    parts: dict[str, ModelPart] = {}
    label: Label = "simulator"
    for role, file in pipeline.parts.items():
        planned = _of_rknn(file, own.of_parts(), report)
        parts[role], label = planned.parts["model"], planned.label
        requested = _ROLES.get(role, ())
        if pipeline.head is None and not isinstance(parts[role].contract.head, requested):
            raise RkzooError(
                f"{file.name} cannot be the {role} of {path.name}.",
                f"It is a {parts[role].contract.family}.",
                "Convert the pipeline again with rkzoo convert.",
            )
    for role, (file, contract) in pipeline.cpu.items():
        with os_errors_explained(f"{file} cannot be read."):
            parts[role] = ModelPart(contract, OnnxBackend(read_bytes(file)))
    options = replace(request.task_options, prompts=prompts)
    return Plan(pipeline.name, label, parts, pipeline.head, pipeline.files, options)


def _check_classes(request: Request, parts: Mapping[str, ModelPart]) -> None:
    """Raises RkzooError for a class that the model has not, before anything is built."""
    for contract in (part.answers for part in parts.values()):
        if request.classes is not None and isinstance(contract.head, BoxHead):
            class_numbers(request.classes, contract.labels, contract.head.classes)


# What a file is taken for must be what it is: it may come from anywhere.
_ROLES: dict[str, tuple[type[Any], ...]] = {
    "det": (TextDetHead, FaceHead),
    "rec": (TextRecHead, PlateHead),
    "cls": (TextClsHead,),
}


def models_digest(planned: Plan) -> str:
    """A hash of all that makes the models' numbers: the models, how they are run, and rkzoo's own
    code."""
    made_by = hashlib.sha256(package_digest().encode())
    for role, part in sorted(planned.parts.items()):
        made_by.update(f"{role} {part.contract} {part.backend.digest}".encode())
    return made_by.hexdigest()


def check_pictures(planned: Plan, verb: str, *, joined: bool = False) -> None:
    """Raises RkzooError for what `verb` cannot work on: a model that takes no pictures (nor plain
    tensors), one part of a pipeline, or, unless `joined`, a pipeline whose parts play together in
    their own way."""
    if isinstance(planned.head, TensorsHead):
        return
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


def _with_backends(planned: Plan, change: Callable[[Backend], Backend]) -> Plan:
    parts = {
        role: replace(part, backend=change(part.backend)) for role, part in planned.parts.items()
    }
    return replace(planned, parts=parts)


def on_core(planned: Plan, number: int) -> Plan:
    """The plan for worker `number` of several: on a board each has an NPU core in turn."""
    return _with_backends(planned, lambda backend: backend.on_core(number))


_PER_CORE = 2
"""While one frame is inside the NPU, another is prepared or decoded."""


def npu_workers(planned: Plan) -> int:
    """How many workers keep every core of the NPU busy; 0 where the plan is for no board."""
    return _PER_CORE * max(part.backend.npu_cores for part in planned.parts.values())


def in_floats(planned: Plan) -> Plan:
    """The plan with floats made of pictures and outputs, as the vendor's Python demos do."""
    return _with_backends(planned, lambda backend: backend.in_floats())


def open_part(part: ModelPart, *, threads: int = 0, report: ProgressReporter = SILENT) -> Session:
    """The part, ready to run as `part.answers` says; `threads` as for OnnxSession."""
    return as_answered(part, part.backend.open(part.contract, threads=threads, report=report))


def as_answered(part: ModelPart, session: Session) -> Session:
    """The opened part with its prompts, which it is then not asked for any more."""
    if part.prompts is None:
        return session
    try:
        return PromptedSession(session, part.contract, part.prompts)
    except BaseException:
        session.close()
        raise
