"""`rkzoo stream`: run a model on video."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.cli import signals
from rkzoo.cli.model_options import (
    add_classes,
    add_known,
    add_model_options,
    add_on,
    add_runtime,
    add_thresholds,
)

if TYPE_CHECKING:
    from rkzoo.workflow.apps.stream import StreamSummary


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "stream",
        help="run a model on video: camera, file, network; live page, video, JSON lines",
        description="Runs a model on a camera, a video, a network stream or a folder of pictures "
        "until it ends or Ctrl-C. Without an output it serves the live page.",
        epilog="Example: rkzoo stream yolov8n.onnx rtsp://camera/stream --http 0.0.0.0:8080        "
        "rkzoo stream yolov8n.onnx film.mp4 --save boxes.mp4 --track",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="0 or /dev/video0 (camera), a video file, rtsp:// or http://, gst:PIPELINE, a folder "
        "of pictures; several share the model in turns",
    )
    add_runtime(parser)
    add_on(parser)
    add_thresholds(parser)
    add_classes(parser)
    add_known(parser)
    parser.add_argument("--track", action="store_true", help="number things across frames")
    parser.add_argument(
        "--reid",
        metavar="MODEL",
        help="with --track: an embedding model that tells things apart by their looks, so that "
        "they keep their numbers behind each other",
    )
    parser.add_argument(
        "--reid-classes",
        metavar="CLASS,...",
        help="classes that it is asked about (default: people for an upright input, else all)",
    )
    where = parser.add_argument_group("where the answers go")
    where.add_argument(
        "--save",
        metavar="VIDEO",
        help="a video with what was found drawn on it: .mp4, .webm, .mkv, .mov, .avi",
    )
    where.add_argument(
        "--jsonl", metavar="FILE", help="one JSON object per frame; - for stdout, line by line"
    )
    where.add_argument(
        "--http",
        nargs="?",
        const="127.0.0.1:8080",
        metavar="[HOST:]PORT",
        help="a live page for browsers on this machine; 0.0.0.0:8080 for the whole network",
    )
    where.add_argument(
        "--http-password",
        metavar="FILE",
        help="ask viewers of the live page for the password in FILE's first line (or in "
        "RKZOO_HTTP_PASSWORD); any user name will do",
    )
    where.add_argument("--show", action="store_true", help="a window; q quits")
    how = parser.add_argument_group("execution")
    how.add_argument("--workers", type=int, metavar="N", help="models that run in parallel")
    how.add_argument(
        "--frames", type=int, metavar="N", help="stop after N processed frames of each source"
    )
    how.add_argument(
        "--camera",
        metavar="FORMAT",
        help="size, rate and pixels to ask cameras for, e.g. 1280x720@30/MJPG; parts are optional",
    )
    every = how.add_mutually_exclusive_group()
    every.add_argument(
        "--every-frame",
        action="store_true",
        default=None,
        help="process every frame, however long it takes (the default for files)",
    )
    every.add_argument(
        "--drop",
        action="store_false",
        dest="every_frame",
        help="drop old frames to stay up to date (the default for live sources); "
        "a file is then played at its own frame rate",
    )
    how.add_argument(
        "--give-up",
        type=float,
        metavar="SECONDS",
        help="how long to retry a lost source (default: until Ctrl-C)",
    )
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.errors import RkzooError
    from rkzoo.streaming.live import read_password
    from rkzoo.streaming.sources import parse_camera_format
    from rkzoo.workflow.apps.stream import StopSignal, StreamOptions, StreamOutputs, stream

    if args.json and args.jsonl == "-":
        raise RkzooError(
            "--json and --jsonl - do not go together.",
            "Both write on stdout.",
            "Give --jsonl a file.",
        )
    if args.http_password and not args.http:
        args.http = "127.0.0.1:8080"
    outputs = StreamOutputs(
        save=Path(args.save) if args.save else None,
        jsonl=Path(args.jsonl) if args.jsonl else None,
        http=args.http,
        show=args.show,
    )
    if outputs == StreamOutputs():
        outputs = StreamOutputs(http="127.0.0.1:8080")
    if outputs.http:
        outputs = replace(outputs, http_password=read_password(args.http_password))
    line, stop = _Line(), StopSignal()
    bars = ProgressBars()
    summary = stream(
        args.model,
        args.sources,
        outputs,
        request=request(args),
        options=StreamOptions(
            track=args.track,
            reid=args.reid,
            reid_classes=tuple(filter(None, args.reid_classes.split(",")))
            if args.reid_classes is not None
            else None,
            every_frame=args.every_frame,
            frames=args.frames,
            workers=args.workers,
            give_up=args.give_up,
            camera=None if args.camera is None else parse_camera_format(args.camera),
        ),
        stop=stop,
        watch=line if sys.stderr.isatty() else None,
        report=bars,
    )
    line.end()
    if args.json:
        frames = {"failed_frames": summary.failed}
        print_json({"model": args.model} | summary.to_json() | frames | bars.failures)
    if stop.number and not summary.frames:
        signals.tell()  # there are no figures yet
    else:
        _print_summary(summary)
    return 128 + stop.number if stop.number else bars.exit_code()


class _Line:
    """A terminal line that is overwritten every second."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, figures: dict[str, Any]) -> None:
        parts = [
            f"{figures['counts'].get('answered', 0)} frames",
            f"{figures['fps'].get('answered', 0.0):.1f}/s",
            *(f"{stage} {ms['p50']:.1f}" for stage, ms in figures["stages_ms"].items()),
        ]
        text = "  ".join(parts) + " ms"
        from rkzoo.cli.console import overwrite

        overwrite(text.ljust(self._width))
        self._width = len(text)

    def end(self) -> None:
        if self._width:
            print(file=sys.stderr)


def _print_summary(summary: StreamSummary) -> None:
    from rkzoo.cli.console import table

    figures = summary.figures
    rate = figures["mean_fps"].get("answered", 0.0)
    print(
        f"{summary.frames} frames in {figures['seconds']:.1f} s, {rate:.1f} a second "
        f"[{summary.runtime}, {figures['workers']} workers]"
        + (f"; {summary.dropped} left out" if summary.dropped else "")
        + (f"; {summary.failed} failed" if summary.failed else "")
        + (
            f"; the source was lost and found {figures['reconnects']} times"
            if figures["reconnects"]
            else ""
        ),
        file=sys.stderr,
    )
    for one in figures["sources"] if len(figures["sources"]) > 1 else []:
        print(
            f"  {one['source']}: {one['frames']} frames, {one['mean_fps']:.1f} a second"
            + (f"; {one['dropped']} left out" if one["dropped"] else "")
            + (f"; {one['failed']} failed" if one["failed"] else ""),
            file=sys.stderr,
        )
    rows = [[stage, ms["p50"], ms["p90"]] for stage, ms in figures["stages_ms"].items()]
    if figures["latency_ms"]:
        rows.append(["frame to answer", *figures["latency_ms"].values()])
    if rows:
        print(table(["stage", "ms p50", "ms p90"], rows), file=sys.stderr)
    for place in summary.files:
        print(f"Written: {place}", file=sys.stderr)
