"""Pre-flight: everything that is in the way, at once."""

from __future__ import annotations

import msgspec
import pytest

from rkzoo.errors import RkzooError
from rkzoo.soc.chips import chips
from rkzoo.toolkit.checks import check, refuse
from rkzoo.toolkit.recipe import InputPlan, Recipe

PLAN = InputPlan(name="x", shape=(1, 3, 64, 64), mean=(0.0,) * 3, std=(255.0,) * 3)
RECIPE = Recipe(soc="rk3588", dtype="int8", inputs=(PLAN,))


def problems(recipe=RECIPE, *, opset=12, shape=(1, 3, 64, 64), samples=20, **quantised):
    return check(recipe=recipe, opset=opset, shapes={"x": shape}, samples=samples, **quantised)


def changed(**fields):
    return msgspec.structs.replace(RECIPE, **fields)


def planned(**fields):
    return changed(inputs=(msgspec.structs.replace(PLAN, **fields),))


def test_a_good_plan_has_no_problem():
    assert problems() == ()
    assert problems(shape=(-1, 3, -1, -1)) == ()
    refuse(())


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"opset": 20}, "opset 20"),
        ({"samples": 0}, "no calibration"),
        ({"shape": (1, 3, 80, 80)}, "1x3x64x64"),
        ({"recipe": changed(soc="rk2118")}, "rk2118"),
        ({"recipe": changed(soc="rv1106", dtype="fp16")}, "rv1106"),
        ({"recipe": changed(soc="rk1808")}, "rk1808"),
        ({"recipe": changed(soc="rk9999")}, "rk9999"),
        ({"recipe": changed(toolkit="9.9.9")}, "9.9.9"),
        ({"recipe": planned(shape=(1, 3, -1, -1)), "shape": (1, 3, -1, -1)}, "1x3x?x?"),
        ({"recipe": planned(mean=(0.0,))}, "3 channels, and mean has 1"),
        ({"recipe": planned(std=(1.0, 0.0, 1.0))}, "std"),
        ({"recipe": planned(name="images")}, "no input called images"),
        ({"recipe": changed(float_layers=("a",), auto_hybrid=True)}, "auto_hybrid is set too"),
        ({"recipe": changed(soc="rv1106", float_layers=("a",))}, "rv1106"),
        ({"recipe": changed(dtype="fp16", auto_hybrid=True)}, "stay in float16"),
        ({"recipe": changed(quantised=True, float_layers=("a",))}, "stay in float16"),
        ({"recipe": changed(toolkit="2.3.0", auto_hybrid=True)}, "2.3.0"),
        ({"recipe": changed(quantised=True, dtype="fp16")}, "quantised already"),
        ({"recipe": changed(quantised=True), "integer_operators": ["QLinearConv"]}, "QLinearConv"),
        ({"recipe": changed(quantised=True), "outputs_read_inside": ["cls0"]}, "cls0"),
        ({"recipe": planned(shape=(8, 3, 64, 64)), "shape": (8, 3, 64, 64)}, "8 pictures"),
    ],
)
def test_each_obstacle_is_named(facts, words):
    found = [one for one in problems(**facts) if one.severity == "error"]
    assert any(words in one.what for one in found), found
    assert all(one.what and one.why and one.fix for one in found)
    with pytest.raises(RkzooError):
        refuse(found)


def test_a_quantised_model_needs_no_calibration():
    assert problems(changed(quantised=True), samples=0) == ()


def test_all_of_them_come_in_one_error():
    found = problems(planned(mean=(0.0,)), opset=21, samples=0)
    assert len(found) == 3
    with pytest.raises(RkzooError) as caught:
        refuse(found)
    assert "3 problems" in caught.value.what
    for words in ("opset 21", "mean has 1", "no calibration"):
        assert words in caught.value.why
    assert caught.value.code == 2


def test_few_pictures_only_warn_and_come_last():
    found = problems(samples=3, opset=20)
    assert [one.severity for one in found] == ["error", "warning"]
    refuse(found[1:])
    assert problems(changed(dtype="fp16"), samples=0) == ()


def test_a_toolkit_older_than_the_chip_is_refused():
    (found,) = problems(changed(soc="rv1126b", toolkit="2.3.0"))
    assert "2.3.0 cannot build for rv1126b" in found.what
    assert "2.3.2" in found.why
    assert problems(changed(soc="rv1126b", toolkit="2.3.2")) == ()


def test_four_bit_weights_are_refused_with_a_list_of_who_has_them():
    found = problems(changed(soc="rk3588", dtype="w4a16"))
    assert "rk3576 and rv1126b only" in found[0].why
    rk3576 = {"soc": "rk3576", "dtype": "w4a16"}
    assert problems(changed(**rk3576), samples=0) == (), "nothing of it is calibrated"
    (found,) = problems(changed(**rk3576, algorithm="gdq"), samples=0)
    assert "no calibration pictures" in found.what
    (found,) = problems(changed(**rk3576, algorithm="mmse"))
    assert "mmse does not go with w4a16" in found.what
    (found,) = problems(changed(algorithm="gdq"))
    assert "gdq does not go with int8" in found.what
    (found,) = problems(changed(**rk3576, toolkit="2.3.0"))
    assert "2.3.2" in found.why


def test_a_batch_is_refused_where_the_file_has_no_place_for_it():
    (found,) = problems(changed(soc="rv1106", batch=4))
    assert "rv1106 takes one picture at a time" in found.what
    assert problems(changed(soc="rv1126b", batch=4)) == ()
    (found,) = problems(changed(soc="rv1103b", sizes=((64, 64), (32, 32))))
    assert "pictures of one size" in found.what


def test_no_pair_outside_the_table_passes():
    for soc, chip in chips().items():
        for dtype in ("int8", "fp16", "w4a16"):
            refused = any(p.severity == "error" for p in problems(changed(soc=soc, dtype=dtype)))
            assert refused == (chip.generation == 1 or dtype not in chip.dtypes), (soc, dtype)
