"""From a float model to a .rknn for each chip asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rkzoo.contract.audio import CtcSpeechHead, ParaformerHead
from rkzoo.contract.model import Contract, Head
from rkzoo.errors import RkzooError
from rkzoo.files import (
    atomic_output,
    check_folder,
    os_errors_explained,
    require_space,
    sha256_of,
    write_text,
)
from rkzoo.graph.lowering.rewrites.rewriting import AppliedRewrite
from rkzoo.graph.lowering.verify import EquivalenceReport
from rkzoo.graph.rknn import reader as rknn
from rkzoo.json_values import json_text, to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.soc.chips import chips, supported
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.toolkit import builds, environment
from rkzoo.toolkit.logscan import Finding
from rkzoo.toolkit.process import ModelRefused, ToolkitProcess
from rkzoo.toolkit.recipe import Dtype, Sidecar
from rkzoo.workflow.compile.golden import check_count, golden_path, record, samples
from rkzoo.workflow.compile.native_check import refuse_left_out, refuse_unreadable
from rkzoo.workflow.compile.prepare import Prepared, prepare
from rkzoo.workflow.compile.scores import scale_findings
from rkzoo.workflow.compile.way_out import with_way_out
from rkzoo.workflow.request.model_name import card_of, is_pipeline
from rkzoo.workflow.request.models import Models, find_models
from rkzoo.workflow.request.pipeline_file import write_pipeline
from rkzoo.workflow.request.request import ModelOptions, Request, request_of
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.zoo.catalogue import dtypes_on, members
from rkzoo.zoo.labels import label_set, label_sets
from rkzoo.zoo.schema import Card

if TYPE_CHECKING:
    from typing_extensions import Unpack

_SMALLEST = 5  # a .rknn is at least the graph's size by this
# Contracts longer than this go into the .rknn without their labels (a text model has
# thousands); the sidecar keeps them.
_CUSTOM_STRING_BYTES = 1023  # the toolkit takes no more


@dataclass(frozen=True)
class ConversionResult:
    """One .rknn. `size` in bytes, `seconds` of the build, `findings` what the toolkit did
    not report by itself, `proof` how equal the cut is to the uncut graph (None where
    nothing was cut), `pipeline` the file that joins it to the other parts of a pipeline, `golden`
    what `rkzoo check` holds a board against, where that was asked for, `rewritten` the operators
    that became others for the toolkit."""

    soc: str
    dtype: Dtype
    rknn: Path
    sidecar: Path
    size: int
    seconds: float
    findings: tuple[Finding, ...] = ()
    proof: EquivalenceReport | None = None
    pipeline: Path | None = None
    golden: Path | None = None
    rewritten: tuple[AppliedRewrite, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        document: dict[str, Any] = to_json_value(self._document())
        return document

    def _document(self) -> dict[str, Any]:
        return {
            "soc": self.soc,
            "dtype": self.dtype,
            "rknn": str(self.rknn),
            "sidecar": str(self.sidecar),
            "pipeline": str(self.pipeline) if self.pipeline else None,
            "golden": str(self.golden) if self.golden else None,
            "bytes": self.size,
            "seconds": round(self.seconds, 2),
            "findings": self.findings,
            "proof": self.proof,
            "rewritten": self.rewritten,
        }


def convert(
    model: str | os.PathLike[str],
    soc: str | Sequence[str],
    request: Request | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    golden: int = 0,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> list[ConversionResult]:
    """Converts a model for one chip or several. What exists already survives a failure.

    Args:
        model: A card's name or a model file.
        soc: One chip or several.
        request: How it is converted: number format, calibration, toolkit, and what the model
            leaves open.
        output: The .rknn to write, or a folder; with several chips their names are put into the
            file names.
        golden: How many inputs are kept beside each .rknn with what the simulator answers, for
            `rkzoo check`.
        report: Where notes and progress go.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        One record a .rknn: several for several chips, and for the parts of a pipeline.

    Raises:
        RkzooError: The model cannot be found or built, or an option does not go with it.
    """
    request = request_of(request, options)
    check_count(golden)
    if golden and request.batch > 1:
        raise RkzooError(
            "--golden does not go with --batch.",
            "What rkzoo check compares is one input at a time.",
            "Leave one of them out.",
        )
    # Names first: a typing error should not cost a download.
    socs = [chip_name(name) for name in ([soc] if isinstance(soc, str) else soc)]
    if card := card_of(os.fspath(model)):
        check_chips(card, socs)
    target = Path(output) if output else None
    check_target(os.fspath(model), target)
    models = find_models(os.fspath(model), request, report, to_run=False)
    if not models.single:
        check_several(models.name, models.roles, target)
    conversions: dict[str, list[ConversionResult]] = {}
    cpu: dict[str, tuple[bytes, Contract]] = {}
    files: dict[str, Path] = {}
    for role, ready in models:
        files |= {f"{role}.{kind}": file for kind, file in ready.files.items()}
        if ready.cpu:
            on_processor(ready, models, report)
            cpu[role] = (ready.graph().SerializeToString(), ready.contract)
            continue
        conversions[role] = convert_resolved(
            _unlabelled(ready),
            socs,
            replace(request, dtype=models.dtype_of(ready, request.dtype)),
            output=target,
            golden=golden,
            report=report,
        )
    if not models.single:
        write = partial(write_pipeline, cpu=cpu, files=files, head=models.head)
        stem = models.name + (f"-{request.dtype}" if request.dtype else "")
        conversions = _joined(stem, models.name, conversions, write)
    return [conversion for conversions in conversions.values() for conversion in conversions]


def check_target(name: str, target: Path | None) -> None:
    """Raises RkzooError for one file where a pipeline becomes several, and for a place that
    nothing can be written to."""
    check_folder(_folder_of(target))
    pipeline = is_pipeline(name)
    if pipeline is not None:
        check_several(pipeline.name, tuple(pipeline.pipeline.values()), target)


def check_several(name: str, parts: Sequence[str], target: Path | None) -> None:
    """Raises RkzooError for one file where a model becomes several."""
    if target is not None and target.suffix:
        raise RkzooError(
            f"{name} becomes {len(parts)} files.",
            f"It consists of {', '.join(parts)}.",
            "Give -o a folder.",
        )


def on_processor(ready: ResolvedModel, models: Models, report: ProgressReporter) -> None:
    """Notes that a part of a pipeline is not converted. Raises RkzooError for a single model."""
    why = ready.cpu
    if models.single:
        raise RkzooError(
            f"{ready.name} is not converted.",
            f"It stays on the processor: {why}",
            "Convert the pipeline that it is a part of: see rkzoo list.",
        )
    report.note(f"{ready.name} stays on the processor. {why}")


def check_chips(card: Card, socs: Sequence[str]) -> None:
    """Raises RkzooError where a chip can build no number format that the card has, naming the
    chips that can."""
    if card.pipeline and all(member.cpu for member in members(card).values()):
        raise RkzooError(
            f"Nothing of {card.name} is built for a chip.",
            "All of it stays on the processor.",
            f"Use it as it is: rkzoo run {card.name}",
        )
    able = {soc: dtypes_on(card, soc, chips()[soc].dtypes) for soc in supported()}
    for soc in socs:
        if able[soc] or card.task == "asset":
            continue
        builds = " and ".join(chips()[soc].dtypes)
        parts = [card for card in members(card).values() if not card.cpu] or [card]
        unable = (part for part in parts if not dtypes_on(part, soc, chips()[soc].dtypes))
        bad = next(unable, card)
        why = f"{bad.name} comes in {' and '.join(bad.dtypes)}, and {soc} builds {builds} only."
        if bad.socs and soc not in bad.socs:
            why = f"The card of {bad.name} names {', '.join(bad.socs)} only."
        raise RkzooError(
            f"{card.name} cannot be built for {soc}.",
            why,
            f"Build it for {', '.join(text for text in able if able[text])}.",
        )


def _joined(
    stem: str,
    name: str,
    conversions: dict[str, list[ConversionResult]],
    write: Callable[[Path, str, dict[str, Path]], None] = write_pipeline,
) -> dict[str, list[ConversionResult]]:
    """Writes, for each chip, the file that makes one model of the parts."""
    joined: dict[str, list[ConversionResult]] = {role: [] for role in conversions}
    for parts in zip(*conversions.values(), strict=True):
        path = parts[0].rknn.with_name(f"{stem}-{parts[0].soc}.json")
        write(path, name, {role: part.rknn for role, part in zip(conversions, parts, strict=True)})
        for role, part in zip(conversions, parts, strict=True):
            joined[role].append(replace(part, pipeline=path))
    return joined


def _unlabelled(ready: ResolvedModel) -> ResolvedModel:
    """A model that takes prompts has no labels of its own: each run names its classes."""
    if ready.contract.texts is None:
        return ready
    return replace(ready, contract=msgspec.structs.replace(ready.contract, labels=()))


def convert_resolved(
    ready: ResolvedModel,
    socs: Sequence[str],
    request: Request | None = None,
    *,
    output: Path | None = None,
    golden: int = 0,
    report: ProgressReporter = SILENT,
) -> list[ConversionResult]:
    """As `convert`, for a model that is resolved already."""
    request = request or Request()
    pictures = request.pictures
    chosen: Dtype = request.dtype or ready.dtypes[0]  # type: ignore[assignment]
    # Before anything that takes long.
    targets = output_names(ready.name, socs, chosen, output)
    check_folder(_folder_of(output))
    prepared = prepare(
        ready,
        socs,
        chosen,
        pictures,
        request.toolkit,
        report,
        count=request.calibration_count,
        batch=request.batch,
        sizes=request.sizes,
        memory=request.memory,
    )
    require_space(targets[0].parent, len(socs) * prepared.parameters, "The .rknn")
    fed = samples(prepared, pictures, golden, report) if golden else None
    env = environment.ensure_for(prepared.recipe, report=report)
    running: list[ToolkitProcess] = []

    def one(soc: str, target: Path) -> ConversionResult:
        with ToolkitProcess(env, report=report) as process:
            running.append(process)
            try:
                conversion = _build(prepared, soc, target, process)
            except ModelRefused as error:
                raise with_way_out(error, prepared, soc, env, report) from error
            # One of an earlier build would only be refused.
            golden_path(target).unlink(missing_ok=True)
            if fed is None:
                return conversion
            return replace(conversion, golden=record(target, process, prepared.recipe.inputs, fed))

    # Each build is a process of about 0.6 GB that keeps one core busy.
    with ThreadPoolExecutor(max(1, min(len(socs), os.cpu_count() or 1))) as pool:
        jobs = [pool.submit(one, soc, target) for soc, target in zip(socs, targets, strict=True)]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            # One failure, or Ctrl-C, ends them all: nobody waits for builds nobody wants.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise


def _build(
    prepared: Prepared,
    soc: str,
    target: Path,
    process: ToolkitProcess,
) -> ConversionResult:
    inputs = builds.find(prepared.key)
    if inputs is None:
        raise RkzooError(
            "The inputs of the build have gone from the cache.",
            "Another program removed them meanwhile.",
            "Run the command again.",
            code=1,
        )
    ready = prepared.ready
    inputs = replace(
        inputs,
        recipe=msgspec.structs.replace(prepared.recipe, soc=soc),
        custom_string=custom_string(ready.contract),
    )
    with atomic_output(target) as temporary:
        built = process.build(inputs, temporary, keep=True)
        file = rknn.read(temporary)
        refuse_left_out(file, prepared.outputs)
        refuse_unreadable(file, ready.contract, ready.source.card or ready.source.file)
    findings = (*built.findings, *scale_findings(file, ready.contract))
    sidecar = target.with_name(target.name + ".json")
    document = Sidecar(
        source=ready.source,
        recipe=inputs.recipe,
        contract=ready.contract,
        calibration=prepared.calibration,
        build=prepared.key,
        rkzoo=version("rkzoo"),
        head=ready.quantise.head,
        warnings=tuple(finding.message for finding in findings),
        rknn=sha256_of(target),
    )
    write_text(sidecar, json_text(msgspec.to_builtins(document), indent=1) + "\n")
    with os_errors_explained(f"{target} cannot be read."):
        size = target.stat().st_size
    return ConversionResult(
        soc,
        prepared.recipe.dtype,
        target,
        sidecar,
        size,
        built.seconds,
        findings,
        prepared.proof,
        rewritten=prepared.rewritten,
    )


def custom_string(contract: Contract) -> str:
    """What goes into the .rknn itself, so that the file alone tells how to use it. Where room is
    short, fields with their usual value go first, then the labels: by the name of their set
    where they are one that rkzoo knows, else altogether."""
    nameless = msgspec.structs.replace(contract, labels=())
    known = next((name for name in label_sets() if label_set(name) == contract.labels), None)
    short: dict[str, Any] = {"contract": _unusual(nameless)}
    tries = (
        {"contract": msgspec.to_builtins(contract)},
        {"contract": _unusual(contract)},
        short | ({"label_set": known} if known else {}),
        short,
        # The file itself says what its inputs are.
        {"contract": _unusual(msgspec.structs.replace(nameless, others=()))},
        # The sidecar alone has room for the statistics of a speech model's features.
        {"contract": _unusual(msgspec.structs.replace(nameless, others=(), head=_brief(nameless)))},
    )
    for fields in tries:
        text = json.dumps({"rkzoo": version("rkzoo"), **fields}, separators=(",", ":"))
        if len(text) <= _CUSTOM_STRING_BYTES:
            break
    return text


def _brief(contract: Contract) -> Head:
    head = contract.head
    if isinstance(head, (CtcSpeechHead, ParaformerHead)):
        return head.with_statistics((), ())
    return head


def _unusual(record: Any) -> Any:
    """A record as JSON, without the fields that have their default value."""
    if isinstance(record, tuple):
        return [_unusual(item) for item in record]
    if not isinstance(record, msgspec.Struct):
        return record
    fields = {
        field.encode_name: _unusual(value)
        for field in msgspec.structs.fields(record)
        if (value := getattr(record, field.name)) != field.default
    }
    tag = record.__struct_config__.tag
    return {record.__struct_config__.tag_field or "kind": tag, **fields} if tag else fields


def _folder_of(output: Path | None) -> Path:
    """Where the files go."""
    if output is None or output.is_dir() or not output.suffix:
        return output or Path()
    return output.parent


def output_names(name: str, socs: Sequence[str], dtype: Dtype, output: Path | None) -> list[Path]:
    """One path a chip. Raises RkzooError when `output` is no .rknn and no folder."""
    folder = _folder_of(output)
    if output is None or folder == output:
        return [folder / f"{name}-{soc}-{dtype}.rknn" for soc in socs]
    if output.suffix.lower() != ".rknn":
        raise RkzooError(
            f"{output} does not end in .rknn.", "That is what convert writes.", "Rename it."
        )
    if len(socs) == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{soc}{output.suffix}") for soc in socs]
