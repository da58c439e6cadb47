"""rkzoo run: pictures in, boxes or text out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rkzoo.cli.asked import add_asked, add_runtime
from rkzoo.errors import RkzooError


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "run",
        help="pictures in, boxes or text out",
        description="Runs a model on pictures and draws what it found.",
        epilog="Example: rkzoo run ppocr page.jpg        rkzoo run yolov8n.onnx photos/ --json",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="pictures, folders or globs")
    add_runtime(parser)
    parser.add_argument("--conf", type=float, help="least score in 0..1 (default 0.25; text 0.5)")
    parser.add_argument("--iou", type=float, help="overlap above which a box goes (default 0.45)")
    parser.add_argument("-o", "--output", metavar="DIR", help="where the drawn pictures go")
    add_asked(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.asked import asked
    from rkzoo.cli.console import Bars, print_json
    from rkzoo.files import check_apart
    from rkzoo.vision.image import expand
    from rkzoo.workflow.load import open_model, options_of, page_of
    from rkzoo.workflow.model import save_names

    files = expand(args.inputs)
    folder = Path(args.output) if args.output else None
    # Pictures are what people believe, so they are drawn unless a program is reading.
    if folder is None and not args.json:
        folder = Path("rkzoo-out")
    names = save_names(files)
    if folder is not None:
        check_apart((folder / name for name in names.values()), files)
    bars = Bars()
    documents = []
    warned: dict[str, Path] = {}
    with open_model(
        args.model, asked(args), options_of(args.conf, args.iou), page_of(args.conf), bars
    ) as model:
        for file in files:
            result = model(file)
            document = result.to_json()
            if folder is not None:
                try:
                    document["picture"] = str(result.save(folder / names[file]))
                except RkzooError as error:
                    if args.output or _can_draw():
                        raise
                    # Nobody asked for pictures, and a board need not have what draws them.
                    print(f"note: {error}", file=sys.stderr)
                    folder = None
            documents.append(document)
            for text in result.warnings:
                warned.setdefault(text, file)
            if not args.json:
                print(f"{file}  [{result.runtime}, {result.seconds * 1000:.0f} ms]")
                print("\n".join(f"  {line}" for line in result.found.lines()) or "  nothing found")
        runtime = model.runtime
    if args.json:
        print_json({"model": args.model, "runtime": runtime, "images": documents})
    for text, file in warned.items():
        print(f"warning: {file}: {text}", file=sys.stderr)
    if folder is not None:
        print(f"Pictures are in {folder}/", file=sys.stderr)
    return 0


def _can_draw() -> bool:
    try:
        import supervision  # noqa: F401
    except ImportError:
        return False
    return True
