"""`rkzoo run`: run a model on images, audio or text."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.cli.model_options import (
    add_classes,
    add_model_options,
    add_on,
    add_runtime,
    add_task_options,
    add_thresholds,
)
from rkzoo.cli.streams import one_line
from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rkzoo.progress import ProgressReporter
    from rkzoo.workflow.inference.inputs import InputKind
    from rkzoo.workflow.inference.model import Model, Result
    from rkzoo.workflow.inference.plan import Plan

    Input = tuple[Any, Path | None, str]
    Answered = tuple[Input, Result]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "run",
        help="run a model on pictures, sounds or texts",
        description="Runs a model on pictures and draws the results; audio and text models run on "
        "sounds or texts.",
        epilog="Example: rkzoo run ppocr page.jpg        rkzoo run yolov8n.onnx photos/ --json",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="pictures, sounds or texts; folders or globs; mic is the microphone",
    )
    add_runtime(parser)
    add_on(parser)
    add_thresholds(parser)
    add_classes(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR|FILE",
        help="folder of the drawn pictures, texts or sounds; or a file for a single one, whose "
        "suffix selects the format (.jpg .png, .txt .srt .vtt .json, .csv, .wav .flac .ogg .mp3"
        " .opus)",
    )
    add_model_options(parser)
    add_task_options(parser)
    parser.add_argument(
        "--search", metavar="WORDS", help="find pictures (clip) or lines of text (minilm) by words"
    )
    parser.add_argument(
        "--save-txt", metavar="DIR", help="objects as YOLO's text files, one for each picture"
    )
    parser.add_argument(
        "--save-conf", action="store_true", help="with the confidence at the end of each line"
    )
    parser.add_argument("--save-json", metavar="FILE", help="objects as COCO's results, one file")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    if args.search is not None:
        from rkzoo.cli.search import search

        return search(args)
    if args.inputs == ["mic"]:
        from rkzoo.cli.listen import listen

        return listen(args)
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import JsonList, ProgressBars
    from rkzoo.files import refuse_overwriting_inputs
    from rkzoo.workflow.inference.exports import exports
    from rkzoo.workflow.inference.load import open_planned
    from rkzoo.workflow.inference.model import save_names

    bars = ProgressBars()
    planned, input_kind, sources = _planned(args, bars)
    files = [input_kind.file(source) for source in sources]
    file_named = _file_named(args.output, input_kind.written, len(sources))
    names = [file_named.name] if file_named else save_names(files)
    txt, json = (Path(name) if name else None for name in (args.save_txt, args.save_json))
    # Results are drawn by default, unless a program reads the output.
    usual = None if args.json or txt or json else Path("rkzoo-out")
    folder = Path(args.output) if args.output else usual
    folder = file_named.parent if file_named else folder
    if folder is not None:
        refuse_overwriting_inputs(
            (folder / name for name in names), [file for file in files if file]
        )
    warned: dict[str, str] = {}
    # Nothing of a picture is kept once it is shown and written: there may be a hundred thousand.
    with (
        JsonList() as documents,
        exports(planned, txt=txt, json=json, confidences=args.save_conf) as export,
        open_planned(planned, bars) as model,
    ):
        inputs = list(zip(sources, files, names, strict=True))
        for (_, file, name), result in _answers(model, inputs, bars):
            document = result.to_json()
            export(result, file or Path(name))
            if folder is not None:
                target = file_named or _target(result, folder / name)
                document[input_kind.gives] = str(result.save(target))
            if args.json:
                documents.append(document)
            shown_name = one_line(str(file or name))
            for text in result.warnings:
                warned.setdefault(text, shown_name)
            if not args.json:
                _print_summary(result, shown_name)
        if args.json:
            hardware = next(part.backend.hardware for part in planned.parts.values())
            head = {"model": args.model, "runtime": model.runtime}
            head |= {"hardware": hardware} if hardware else {}
            documents.print(head, input_kind.several, bars.failures)
    _say(warned, input_kind, folder, file_named, *(place for place in (txt, json) if place))
    return bars.exit_code()


def _answers(model: Model, inputs: Sequence[Input], bars: ProgressReporter) -> Iterator[Answered]:
    """What is found in each input, as many at a time as the model takes."""
    from rkzoo.progress import readable

    def shown(one: Input) -> object:
        return one[1] or one[2]

    if model.batch == 1:
        yield from readable(inputs, lambda one: model(one[0]), shown, bars)
        return
    read = readable(inputs, lambda one: model.read(one[0]), shown, bars)
    while rows := list(islice(read, model.batch)):
        found = model.answer_read([pair for _, pair in rows])
        yield from zip((one for one, _ in rows), found, strict=True)


def _say(
    warned: dict[str, str],
    input_kind: InputKind,
    folder: Path | None,
    file_named: Path | None,
    *written: Path,
) -> None:
    """What is likely wrong with the results, and where they are."""
    for text, shown_name in warned.items():
        print(f"warning: {shown_name}: {text}", file=sys.stderr)
    if file_named:
        print(f"The {input_kind.gives} is in {file_named}", file=sys.stderr)
    elif folder is not None:
        print(f"{input_kind.gives.capitalize()}s are in {folder}/", file=sys.stderr)
    for place in written:
        print(f"Written: {place}", file=sys.stderr)


def _planned(
    args: argparse.Namespace, report: ProgressReporter
) -> tuple[Plan, InputKind, Sequence[Any]]:
    """The plan, what it takes, and the inputs that were named. Raises RkzooError."""
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.inference.inputs import input_kind_of_model, of_plan
    from rkzoo.workflow.inference.plan import plan
    from rkzoo.workflow.request.importers.registry import is_model_file

    if not is_model_file(args.model):
        input_kind_of_model(args.model).expand(
            args.inputs
        )  # a typing error should not cost a download
    planned = plan(args.model, request(args), report)
    input_kind = of_plan(planned)
    return planned, input_kind, input_kind.expand(args.inputs)


def _file_named(output: str | None, suffixes: frozenset[str], sources: int) -> Path | None:
    """The file named by -o; None where it is a folder. Raises RkzooError for several results in one
    file, and for an unsupported suffix.
    """
    from rkzoo.workflow.inference.inputs import FILES

    path = Path(output or "")
    suffix = path.suffix.lower()
    if suffix not in FILES or path.is_dir():
        return None
    if suffix not in suffixes:
        raise RkzooError(
            f"{path} cannot be written.",
            f"The results of this model are written as {', '.join(sorted(suffixes))}.",
            "Give another suffix, or a folder.",
        )
    if sources != 1:
        raise RkzooError(
            f"{sources} results do not fit into {path}.",
            "Each is a file of its own.",
            "Give -o a folder.",
        )
    return path


def _target(result: Result, usual: Path) -> Path:
    """Output path of a result; results that are not drawings have a suffix of their own."""
    from rkzoo.workflow.inference.model import Saveable

    return (
        usual.with_suffix(result.prediction.suffix)
        if isinstance(result.prediction, Saveable)
        else usual
    )


def _print_summary(result: Result, text: str) -> None:
    print(f"{text}  [{result.runtime}, {result.seconds * 1000:.0f} ms]")
    lines = (f"  {one_line(line)}" for line in result.prediction.lines())
    print("\n".join(lines) or "  nothing found", flush=True)
