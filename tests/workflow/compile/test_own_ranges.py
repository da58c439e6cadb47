"""Ranges of rkzoo's own in a build by the real toolkit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from tests.graph.lowering.test_ranges import network

from rkzoo.toolkit import environment
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import DEFAULT_VERSION, InputPlan, Recipe
from rkzoo.workflow.compile.ranges import fed, with_own_ranges
from rkzoo.workflow.inference.plan import plan
from rkzoo.workflow.request.calibration import arrays, from_files
from rkzoo.workflow.request.request import Request

PLAN = InputPlan(name="x", shape=(1, 3, 16, 16), mean=(128.0,) * 3, std=(6.0,) * 3)


def test_other_algorithms_are_left_to_the_toolkit() -> None:
    recipe = Recipe(soc="rk3588", dtype="int8", inputs=(PLAN,), algorithm="kl_divergence")
    assert with_own_ranges(recipe, network(), [np.zeros((2, 16, 16, 3), np.uint8)]) == recipe
    own = msgspec.structs.replace(recipe, algorithm="mse")
    assert with_own_ranges(own, network(), []) == own


def test_a_picture_is_fed_as_the_toolkit_feeds_it() -> None:
    picture = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    array = fed(picture, PLAN)
    assert array.shape == (1, 3, 16, 16)
    assert array[0, 2, 5, 7] == pytest.approx((float(picture[5, 7, 2]) - 128) / 6)


@pytest.mark.toolkit
def test_they_come_nearer_to_float_than_the_toolkits(assets: Path) -> None:
    """The objectness of yolox_nano, on pictures that calibrated nothing."""
    files = sorted((assets / "data/coco_more_val/images").glob("*.jpg"))
    pictures, others = from_files(files[:8]), from_files(files[8:11])
    lost = {}
    with ToolkitProcess(environment.ensure(DEFAULT_VERSION)) as process:
        for algorithm in ("normal", "mse"):
            request = Request(
                runtime="simulator", dtype="int8", algorithm=algorithm, calibration=pictures
            )
            made = plan(str(assets / "models/yolox_nano.onnx"), request).parts["model"]
            process.build_for_simulation(made.built)
            session = onnxruntime.InferenceSession(str(made.built.onnx))
            names = [output.name for output in session.get_outputs()]
            judged = [place for place, name in enumerate(names) if "obj" in name]
            assert judged
            errors = []
            for picture in arrays(others, made.contract.input):
                plan_of_input = made.built.recipe.inputs[0]
                wanted = session.run(None, {plan_of_input.name: fed(picture, plan_of_input)})
                got = process.infer([picture[None]])
                errors += [np.mean(np.square(got[place] - wanted[place])) for place in judged]
            lost[algorithm] = np.mean(errors)
    assert lost["mse"] < 0.9 * lost["normal"]
