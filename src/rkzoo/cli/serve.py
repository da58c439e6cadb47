"""`rkzoo serve`: models behind protocols that other software speaks."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.cli.model_options import add_classes, add_known, add_runtime, add_thresholds

if TYPE_CHECKING:
    from rkzoo.protocol.board import ServerReady
    from rkzoo.serving.log import Log

TOKEN = "RKZOO_SERVE_TOKEN"
"""Holds the token, where no file is named."""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "serve",
        help="serve models over HTTP: Open Inference Protocol, OpenAI's API, a page",
        description="Serves models to other software: tensors by the Open Inference Protocol v2"
        " (KServe, Triton), pictures, sounds and texts as JSON, speech and embeddings as OpenAI's"
        " API has them, and a page to try it in a browser.",
        epilog="Example: rkzoo serve yolov8n.rknn ppocr        "
        "curl --data-binary @street.jpg http://127.0.0.1:8000/v1/models/yolov8n:predict",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="a name of rkzoo list, a model file, NAME=MODEL, or a folder of converted models",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one")
    parser.add_argument("--socket", metavar="PATH", help="a Unix socket, in place of host and port")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"what clients send as 'Authorization: Bearer TOKEN' (or {TOKEN}); needed for every"
        " address but this machine's own",
    )
    parser.add_argument("--tls-cert", metavar="PEM", help="certificate for https")
    parser.add_argument("--tls-key", metavar="PEM", help="its key")
    parser.add_argument("--grpc", type=int, metavar="PORT", help="the same models by gRPC")
    parser.add_argument(
        "--wyoming",
        type=int,
        metavar="PORT",
        help="speech for Home Assistant, by Wyoming, where clients send no token",
    )
    parser.add_argument(
        "--queue", type=int, default=256, metavar="N", help="requests that wait for a model (256)"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds until one is given up (30; sounds, texts: ten times)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="of each model at once (default: two a core of the NPU, two on a PC)",
    )
    parser.add_argument(
        "--board", action="store_true", help="answer what --on asks of a board, too"
    )
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when stdin does, as behind ssh"
    )
    add_runtime(parser)
    add_thresholds(parser)
    add_classes(parser)
    add_known(parser)
    parser.add_argument("--language", metavar="CODE", help="of speech or text, for example en")
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="of the lines on stderr, one for each request (default text)",
    )
    parser.add_argument(
        "--no-access-log", action="store_true", help="no lines for requests, only for models"
    )
    parser.add_argument("--json", action="store_true", help="say as JSON on stdout where it is")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.errors import RkzooError
    from rkzoo.serving.engine import Engine, Limits
    from rkzoo.serving.repository import served_models
    from rkzoo.serving.run import Settings, check, serve

    if not args.models and not args.board:
        raise RkzooError(
            "There is nothing to serve.",
            "No model was named.",
            "Name one, for example: rkzoo serve yolov8n.rknn (rkzoo list shows names).",
        )
    _check_numbers(args)
    ports = {name: getattr(args, name) for name in ("grpc", "wyoming")}
    settings = Settings(
        host=args.host,
        port=args.port,
        socket=Path(args.socket) if args.socket else None,
        token=_token(args.token_file),
        certificate=Path(args.tls_cert) if args.tls_cert else None,
        key=Path(args.tls_key) if args.tls_key else None,
        listeners={name: port for name, port in ports.items() if port is not None},
        board=args.board,
        until_stdin_closes=args.until_stdin_closes,
    )
    check(settings)
    limits = Limits(waiting=args.queue, deadline=args.deadline)
    served = served_models(args.models, _request(args), args.workers)
    log = _log(args)
    engine = Engine(served, limits, log=log.say)
    engine.observers.append(log.request)
    serve(engine, settings, lambda told: _say(told, log, args.json or args.board))
    return 0


_BOUNDS = {"queue": (1, 1 << 16), "deadline": (0.01, 86_400), "workers": (0, 64)}


def _check_numbers(args: argparse.Namespace) -> None:
    from rkzoo.errors import RkzooError

    ports = {name: (0, 65_535) for name in ("port", "grpc", "wyoming")}
    for name, (least, most) in (_BOUNDS | ports).items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise RkzooError(
                f"--{name} {value} is not possible.",
                f"It is {least} to {most}.",
                "Leave it out for the usual one.",
            )
    beside = {"--tls-cert": args.tls_cert, "--tls-key": args.tls_key}
    ignored = [name for name, value in beside.items() if args.socket and value]
    if ignored:
        raise RkzooError(
            f"{ignored[0]} does not go with --socket.",
            "A socket in the file system is private by its permissions.",
            "Leave one of them out.",
        )


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Request` that were given, checked."""
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.request.request import ModelOptions

    given = request(args)
    names = given.given() & ModelOptions.__annotations__.keys()
    return {name: getattr(given, name) for name in sorted(names)}


def _token(file: str | None) -> str:
    from rkzoo.errors import RkzooError
    from rkzoo.files import os_errors_explained, read_text

    if file is None:
        return os.environ.get(TOKEN, "")
    with os_errors_explained(f"The token cannot be read from {file}."):
        token = read_text(Path(file).expanduser(), errors="replace").partition("\n")[0].strip()
    if len(token) < 8:
        raise RkzooError(
            f"There is no token in {file}.",
            "It is the first line of a file, and has 8 characters or more.",
            f"Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(24))' > {file}",
        )
    return token


def _log(args: argparse.Namespace) -> Log:
    """Where lines go. Who started it over a cable reads the last one to say why it ended: those of
    requests would hide that."""
    from rkzoo.serving.log import Log

    requests = not (args.no_access_log or args.until_stdin_closes)
    return Log(args.log_format, _write, requests)


def _write(line: str) -> None:
    from rkzoo.cli.streams import one_line

    print(one_line(line), file=sys.stderr, flush=True)


def _say(told: ServerReady, log: Log, as_json: bool) -> None:
    import msgspec

    if as_json:
        print(msgspec.json.encode(told).decode(), flush=True)
    for address in told.addresses:
        log.say("", f"Listening at {address} (Ctrl-C ends it)")
