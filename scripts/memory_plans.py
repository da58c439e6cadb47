"""What each plan of the working memory gives: `python scripts/memory_plans.py MODEL [CHIP ...]`.

Builds the model for each chip with every --memory-plan and --compute-order, in INT8 with noise for
calibration (which decides no size), and prints a table of the compiler's "internal" memory in KiB.

Of yolov8n (640x640) they all give the same with 2.5.0: 2800 on rv1106 and rk3562, 4400 on rk3588
and rk3576, 6106 on rk3568. So convert tries none by itself.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from typing import get_args

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.soc.chips import chips, supported
from rkzoo.toolkit import environment
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import DEFAULT_VERSION, ComputeOrder, Dtype, MemoryPlan
from rkzoo.workflow.performance.estimate import build_inputs, read_subject


def main(model: str, *socs: str) -> None:
    subject = read_subject(model)
    ways = list(product(get_args(MemoryPlan), get_args(ComputeOrder)))
    print("chip".ljust(9), *(f"{plan}/{order[:5]}".rjust(23) for plan, order in ways))
    for soc in socs or supported():
        dtype: Dtype = "int8" if "int8" in chips()[soc].dtypes else "fp16"
        cells = []
        for plan, order in ways:
            inputs = build_inputs(subject, soc, dtype, DEFAULT_VERSION)
            recipe = msgspec.structs.replace(inputs.recipe, memory_plan=plan, compute_order=order)
            try:
                with ToolkitProcess(environment.ensure()) as process:
                    built = process.build(replace(inputs, recipe=recipe), process.folder / "x.rknn")
                cells.append("?" if built.internal is None else f"{built.internal / 1024:.0f}")
            except RkzooError as error:
                cells.append(error.what[:20])
        print(soc.ljust(9), *(cell.rjust(23) for cell in cells), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
