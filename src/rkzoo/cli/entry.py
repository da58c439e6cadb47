"""The console script: signals and streams first, then the command line (`main`)."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from rkzoo.cli import signals


def run() -> NoReturn:
    """Run the command line of this process, and end it."""
    code = 1
    try:
        _occupy()
        signals.install()
        code = _run()
    except BaseException:
        if signals.seen() is None or "--debug" in sys.argv:
            import traceback

            traceback.print_exc()
    signals.finish(code)


def _occupy() -> None:
    """Open on nothing what is closed of stdin, stdout and stderr: the next file that is opened
    would get its number, and with it what is printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Writing to stdout fails then, as it does for a closed one.
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
            os.set_inheritable(descriptor, True)


def _run() -> int:
    from rkzoo.cli import streams

    streams.claim()
    from rkzoo.cli.main import main

    try:
        try:
            code = main(sys.argv[1:])
        except SystemExit as ended:  # the parser, after --help
            code = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush()
    except streams.OutputClosed:
        return 0  # `rkzoo list | head`
    except streams.OutputFailed as error:
        print(f"error: The output could not be written: {error}.", file=sys.stderr)
        return 1
    return code
