"""The cache of build inputs."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.progress import SILENT
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


def entry_of(key):
    return cache_dir("builds") / key


class Notes:
    """A reporter that keeps its notes."""

    def __init__(self):
        self.notes = []

    def task(self, *args, **options):
        return SILENT.task(*args, **options)

    def note(self, message):
        self.notes.append(message)


def bent(content: bytes, place: int, kind: str) -> bytes:
    place %= len(content)
    return {
        "overwritten": content[:place] + b"\x00rkzoo attack\x00" + content[place + 14 :],
        "one bit": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        "truncated": content[:place],
        "longer": content + b"x",
        "empty": b"",
    }[kind]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["model.onnx", "calibration-0.npy", "recipe.json", "digests.json"]),
    place=st.integers(0, 10**6),
    kind=st.sampled_from(["overwritten", "one bit", "truncated", "longer", "empty"]),
)
def test_whatever_byte_of_whatever_file_is_damaged_nothing_damaged_is_found(
    cache, name, place, kind
):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    file = entry_of(key) / name
    content = file.read_bytes()
    file.write_bytes(bent(content, place, kind))
    notes = Notes()
    assert builds.find(key, notes) is None
    assert len(notes.notes) == 1
    assert str(entry_of(key)) in notes.notes[0]
    assert not entry_of(key).exists(), "dropped, so that it is made again"
    assert builds.store(b"graph", [PICTURES], RECIPE) == key
    assert file.read_bytes() == content
    assert builds.find(key, notes) is not None
    assert len(notes.notes) == 1


@pytest.mark.parametrize("name", ["model.onnx", "calibration-0.npy", "recipe.json", "digests.json"])
def test_a_missing_file_counts_as_damage(cache, name):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    (entry_of(key) / name).unlink()
    assert builds.find(key) is None
    assert not entry_of(key).exists()
    assert builds.store(b"graph", [PICTURES], RECIPE) == key
    assert builds.find(key) is not None


def test_a_foreign_file_counts_as_damage(cache):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    np.save(entry_of(key) / "calibration-1.npy", PICTURES)
    assert builds.find(key) is None


def test_an_entry_of_before_there_were_digests_goes_in_silence(cache):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    (entry_of(key) / "digests.json").unlink()
    notes = Notes()
    assert builds.find(key, notes) is None
    assert notes.notes == []


@pytest.fixture
def files(tmp_path):
    """What the toolkit left of a calibration."""
    made = []
    for name in ("hybrid.model", "hybrid.data", "chosen.cfg"):
        made.append(tmp_path / name)
        made[-1].write_bytes(name.encode() * 100)
    return made


def test_what_calibration_left_is_kept_for_the_same_settings_on_any_chip(cache, files):
    found = builds.find(builds.store(b"graph", [PICTURES], RECIPE))
    assert builds.find_calibrated(found, "2.5.0") is None
    builds.keep_calibrated(found, "2.5.0", files)
    folder = builds.find_calibrated(found, "2.5.0")
    for file in files:
        assert (folder / file.name).read_bytes() == file.read_bytes()

    def with_recipe(**fields):
        return replace(found, recipe=msgspec.structs.replace(RECIPE, **fields))

    assert builds.find_calibrated(with_recipe(soc="rv1106"), "2.5.0") == folder
    assert builds.find_calibrated(found, "2.3.2") is None
    assert builds.find_calibrated(with_recipe(algorithm="mmse"), "2.5.0") is None
    assert builds.find_calibrated(with_recipe(float_layers=("x",)), "2.5.0") is None
    assert builds.find_calibrated(replace(found, calibration=None), "2.5.0") is None
    assert builds.find(builds.store(b"graph", [PICTURES], RECIPE)) == found, "still intact"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["hybrid.model", "hybrid.data", "chosen.cfg", "digests.json"]),
    place=st.integers(0, 10**6),
    kind=st.sampled_from(["overwritten", "one bit", "truncated", "longer", "empty"]),
)
def test_damage_to_what_calibration_left_costs_only_that(cache, files, name, place, kind):
    found = builds.find(builds.store(b"graph", [PICTURES], RECIPE))
    builds.keep_calibrated(found, "2.5.0", files)
    folder = builds.find_calibrated(found, "2.5.0")
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(bent(content, place, kind))
    notes = Notes()
    assert builds.find_calibrated(found, "2.5.0", notes) is None
    assert len(notes.notes) == 1
    assert str(folder) in notes.notes[0]
    assert builds.find(found.onnx.parent.name, notes) == found
    builds.keep_calibrated(found, "2.5.0", files)
    assert builds.find_calibrated(found, "2.5.0", notes) == folder
    assert file.read_bytes() == content
    assert len(notes.notes) == 1


def test_nothing_is_kept_beside_a_users_own_file(cache, files, tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    inputs = builds.BuildInputs(place / "model.onnx", RECIPE, place)
    builds.keep_calibrated(inputs, "2.5.0", files)
    assert list(place.iterdir()) == []
    assert builds.find_calibrated(inputs, "2.5.0") is None


def test_what_calibration_left_goes_with_its_entry_and_counts(cache, files):
    key = builds.store(b"graph", [PICTURES], RECIPE)
    builds.keep_calibrated(builds.find(key), "2.5.0", files)
    old = time.time() - 10 * 3600
    os.utime(entry_of(key) / "recipe.json", (old, old))
    builds.store(b"other", [], RECIPE, limit=3000)
    assert not entry_of(key).exists()
