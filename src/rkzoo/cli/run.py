"""rkzoo run: pictures, sounds or words in, the answer out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_model_options, add_runtime, add_task_options, add_thresholds
from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from rkzoo.workflow.inference.model import Result


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "run",
        help="pictures, sounds or words in, the answer out",
        description="Runs a model on pictures and draws what it found; or on sounds or texts, "
        "where it is such a model.",
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
    add_thresholds(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR|FILE",
        help="where the drawn pictures, texts or sounds go; a file for one of them: its suffix "
        "chooses the form (.jpg .png, .txt .srt .vtt .json, .csv, .wav .flac .ogg)",
    )
    add_model_options(parser)
    add_task_options(parser)
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="FILE",
        help="pictures that an embedding (of faces, of people) is compared with, by its cosine",
    )
    parser.add_argument(
        "--search", metavar="WORDS", help="find pictures (clip) or lines of text (minilm) by words"
    )
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
    from rkzoo.cli.console import Bars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.files import check_apart
    from rkzoo.workflow.inference.inputs import medium_of
    from rkzoo.workflow.inference.load import open_model
    from rkzoo.workflow.inference.model import save_names

    medium = medium_of(args.model)
    sources = medium.expand(args.inputs)
    files = [medium.file(source) for source in sources]
    file_named = _file_named(args.output, medium.written, len(sources))
    names = [file_named.name] if file_named else save_names(files)
    # Pictures are what people believe, so they are drawn unless a program is reading.
    usual = None if args.json else Path("rkzoo-out")
    folder = Path(args.output) if args.output else usual
    folder = file_named.parent if file_named else folder
    if folder is not None:
        check_apart((folder / name for name in names), [file for file in files if file])
    bars = Bars()
    documents = []
    warned: dict[str, str] = {}
    with open_model(args.model, request(args), bars) as model:
        for source, file, name in zip(sources, files, names, strict=True):
            result = model(source)
            document = result.to_json()
            if folder is not None:
                try:
                    target = file_named or _target(result, folder / name)
                    document[model.medium.gives] = str(result.save(target))
                except RkzooError as error:
                    if args.output or _can_draw():
                        raise
                    # Nobody asked for pictures, and a board need not have what draws them.
                    print(f"note: {error}", file=sys.stderr)
                    folder = None
            documents.append(document)
            said = str(file or name)
            for text in result.warnings:
                warned.setdefault(text, said)
            if not args.json:
                _tell(result, said)
        runtime, gives = model.runtime, model.medium.gives
    if args.json:
        print_json({"model": args.model, "runtime": runtime, medium.several: documents})
    for text, said in warned.items():
        print(f"warning: {said}: {text}", file=sys.stderr)
    if file_named:
        print(f"The {gives} is in {file_named}", file=sys.stderr)
    elif folder is not None:
        print(f"{gives.capitalize()}s are in {folder}/", file=sys.stderr)
    return 0


def _file_named(output: str | None, suffixes: frozenset[str], sources: int) -> Path | None:
    """The file that -o names, None where it names a folder. Raises RkzooError for several
    results that would go into one file, and a file of another kind."""
    from rkzoo.workflow.inference.inputs import FILES

    path = Path(output or "")
    suffix = path.suffix.lower()
    if suffix not in FILES or path.is_dir():
        return None
    if suffix not in suffixes:
        raise RkzooError(
            f"{path} cannot be written.",
            f"What this model answers is written as {', '.join(sorted(suffixes))}.",
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
    """Where a result goes; one that is no drawing has a suffix of its own."""
    from rkzoo.workflow.inference.model import Written

    return usual.with_suffix(result.found.suffix) if isinstance(result.found, Written) else usual


def _tell(result: Result, said: str) -> None:
    print(f"{said}  [{result.runtime}, {result.seconds * 1000:.0f} ms]")
    print("\n".join(f"  {line}" for line in result.found.lines()) or "  nothing found")


def _can_draw() -> bool:
    try:
        import supervision  # noqa: F401
    except ImportError:
        return False
    return True
