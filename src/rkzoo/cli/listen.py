"""`rkzoo run MODEL mic`: live speech recognition."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkzoo.workflow.inference.model import Found


def listen(args: argparse.Namespace) -> int:
    """From the microphone until Ctrl-C; what is understood is printed as it comes."""
    from rkzoo.cli.console import Bars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.apps import listen as hearing
    from rkzoo.workflow.inference.model import Written

    told = 0

    def tell(found: Found) -> None:
        nonlocal told
        text = getattr(found, "text", "")
        if not args.json:
            print(text[told:], end="", flush=True)
        told = max(told, len(text))

    def ready() -> None:
        print("Listening. Press Ctrl-C to end.", file=sys.stderr)

    found = hearing.listen(args.model, request(args), tell=tell, ready=ready, report=Bars())
    tell(found)
    if args.json:
        print_json({"model": args.model, "results": found.to_json()})
    else:
        print()
    if args.output and isinstance(found, Written):
        path = Path(args.output)
        found.save(path if path.suffix else path / f"mic{found.suffix}")
    return 0
