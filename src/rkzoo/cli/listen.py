"""`rkzoo run MODEL mic`: live speech recognition."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkzoo.workflow.inference.model import Prediction


def listen(args: argparse.Namespace) -> int:
    """From the microphone until Ctrl-C; what is understood is printed as it comes."""
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.apps import listen as hearing
    from rkzoo.workflow.inference.model import Saveable

    told = 0

    def tell(prediction: Prediction) -> None:
        nonlocal told
        text = getattr(prediction, "text", "")
        if not args.json:
            print(text[told:], end="", flush=True)
        told = max(told, len(text))

    def ready() -> None:
        print("Listening. Press Ctrl-C to end.", file=sys.stderr)

    prediction = hearing.transcribe_live(
        args.model, request(args), tell=tell, ready=ready, report=ProgressBars()
    )
    tell(prediction)
    if args.json:
        print_json({"model": args.model, "results": prediction.to_json()})
    else:
        print()
    if args.output and isinstance(prediction, Saveable):
        path = Path(args.output)
        prediction.save(path if path.suffix else path / f"mic{prediction.suffix}")
    return 0
