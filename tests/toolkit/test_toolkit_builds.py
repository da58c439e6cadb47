"""The cache of build inputs."""

from __future__ import annotations

import multiprocessing
import os
import time

import msgspec
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.toolkit import builds
from rkzoo.toolkit.recipe import InputPlan, Recipe

PLAN = InputPlan(name="x", shape=(1, 3, 8, 8), mean=(0.0,) * 3, std=(255.0,) * 3)
RECIPE = Recipe(soc="rk3588", dtype="int8", inputs=(PLAN,))
PICTURES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


def test_what_is_stored_is_found(cache):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    found = builds.find(key)
    assert found is not None
    assert found.onnx.read_bytes() == b"graph"
    assert found.recipe == RECIPE
    assert np.array_equal(np.load(found.calibration / "calibration-0.npy"), PICTURES)
    assert builds.store(b"graph", [PICTURES], RECIPE) == key
    assert [path.name for path in cache_dir("builds").iterdir() if path.is_dir()] == [key]


def test_float_builds_have_no_calibration(cache):
    key = builds.store(b"graph", [], msgspec.structs.replace(RECIPE, dtype="fp16"))
    assert builds.find(key).calibration is None


def test_the_key_depends_on_what_decides_the_numbers_and_on_nothing_else(cache):
    def key(graph=b"graph", arrays=(PICTURES,), **fields):
        return builds.store(graph, list(arrays), msgspec.structs.replace(RECIPE, **fields))

    keys = [
        key(),
        key(graph=b"other"),
        key(arrays=[PICTURES[::-1]]),
        key(arrays=[PICTURES.reshape(2, 8, 3, 8)]),
        key(toolkit="2.3.2"),
        key(algorithm="mmse"),
        key(method="layer"),
        key(optimization_level=2),
        key(inputs=(msgspec.structs.replace(PLAN, mean=(1.0, 0.0, 0.0)),)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(soc="rv1106") == keys[0]


@pytest.mark.parametrize("key", ["0" * 64, "", "../../etc", "a/b"])
def test_an_unknown_key_finds_nothing(cache, key):
    assert builds.find(key) is None


def test_a_damaged_entry_counts_as_missing_and_is_mended(cache):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    (cache_dir("builds") / key / "recipe.json").write_text("{")
    assert builds.find(key) is None
    assert builds.store(b"graph", [PICTURES], RECIPE) == key
    assert builds.find(key) is not None


def test_a_graph_that_cannot_be_read_is_one_sentence(cache, tmp_path):
    with pytest.raises(RkzooError, match=r"none\.onnx cannot be read"):
        builds.store(tmp_path / "none.onnx", [], RECIPE)


def test_the_longest_unused_go_first_and_those_in_use_stay(cache):
    keys = [builds.store(bytes([i]) * 1000, [], RECIPE) for i in range(4)]
    old = time.time() - 10 * 3600
    for age, key in enumerate(keys[:3]):
        os.utime(cache_dir("builds") / key / "recipe.json", (old + age, old + age))
    one = sum(path.stat().st_size for path in (cache_dir("builds") / keys[0]).iterdir())
    builds.find(keys[0])  # used again: the youngest now
    new = builds.store(b"new" * 300, [], RECIPE, limit=3 * one)
    assert [builds.find(key) is not None for key in [*keys, new]] == [
        True,
        False,
        False,
        True,
        True,
    ]
    builds.store(b"newer" * 300, [], RECIPE, limit=1)
    assert builds.find(new) is not None, "used within the hour, so it stays"


def _store(number: int) -> str:
    return builds.store(b"same" * 100000, [PICTURES], RECIPE)


def test_processes_at_the_same_time_agree(cache):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        keys = pool.map(_store, range(12))
    assert len(set(keys)) == 1
    assert builds.find(keys[0]).onnx.stat().st_size == 400000
    assert list(cache_dir("builds").glob(".*.part")) == []
