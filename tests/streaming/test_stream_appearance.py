"""Tracking with appearance: fewer identities are confused where people cross, hide and turn."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from crossing_video import HEIGHT, WIDTH, Moment, people, switches, video
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.writer import GraphWriter
from rkzoo.streaming.appearance import AppearanceOptions, CropEmbedder, averaged, fused
from rkzoo.streaming.tracking import TrackedStream, Tracker, TrackOptions
from rkzoo.tasks.detect.result import Detections
from rkzoo.workflow.apps.stream import StreamOptions, StreamOutputs, stream

Crops = list[NDArray[np.uint8]]


def colours(crops: Crops) -> NDArray[np.float64]:
    """Mean colours of 8 x 4 cells, of length 1: an embedding as a formula."""
    rows = []
    for crop in crops:
        small = cv2.resize(crop, (4, 8), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
        rows.append((small - 120) / max(np.linalg.norm(small - 120), 1e-9))
    return np.stack(rows)


def tracked(
    moments: list[Moment], looks: CropEmbedder | None
) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    tracker = Tracker()
    answers = []
    for moment in moments:

        def describe(rows: NDArray[np.intp], seen: Moment = moment) -> NDArray[np.float64]:
            assert looks is not None
            return looks(seen.image, seen.boxes[rows].astype(np.float32))

        numbers = tracker(moment.boxes, moment.scores, describe if looks else None)
        answers.append((moment.boxes, numbers))
    return answers


def test_appearance_confuses_fewer_identities(assets: Path) -> None:
    crops = people(assets / "data/coco128_val", 8)
    asked: list[int] = []

    def counted(pictures: Crops) -> NDArray[np.float64]:
        asked.append(len(pictures))
        return colours(pictures)

    without = looked = boxes = 0
    for seed in range(2):
        moments = video(crops, seed)
        without += switches(moments, tracked(moments, None))
        looked += switches(moments, tracked(moments, CropEmbedder(counted)))
        boxes += sum(len(moment.boxes) for moment in moments)
    assert looked <= 0.75 * without
    assert sum(asked) < 0.6 * boxes  # those whose track is plain are looked at now and then


def row(*values: float) -> NDArray[np.float64]:
    return np.array(values) / np.linalg.norm(values)


def box(x: float) -> list[float]:
    return [x, 50.0, x + 40, 130.0]


def test_a_lost_thing_is_found_again_by_its_looks_and_another_is_not() -> None:
    looks = {0: row(1, 0, 0), 1: row(0, 1, 0)}
    options = TrackOptions(track_buffer=5)
    for returns, wanted in ((0, 1), (1, 0)):
        tracker = Tracker(options)

        def see(x: float, who: int, tracker: Tracker = tracker) -> list[int]:
            return tracker(
                [box(x)], [0.9], lambda rows: np.stack([looks[who]] * len(rows))
            ).tolist()

        for frame in range(12):
            assert see(100 + 3 * frame, 0) == [1]
        for _ in range(15):  # longer than by its place alone, and it turned round meanwhile
            tracker(np.empty((0, 4)), [])
        assert see(60, returns) == [wanted]


def test_who_looks_like_two_is_not_guessed() -> None:
    tracker = Tracker(appearance=AppearanceOptions(max_distance=0.5))
    rows = np.stack([row(1, 0.1), row(1, 0.12)])
    for _ in range(3):
        tracker([box(100), box(400)], [0.9, 0.9], lambda chosen: rows[chosen])
    for _ in range(3):
        tracker(np.empty((0, 4)), [])
    middle = row(1, 0.11)
    assert tracker([box(250)], [0.9], lambda chosen: middle[None]).tolist() == [0]


def test_only_boxes_that_need_it_are_looked_at() -> None:
    tracker = Tracker(appearance=AppearanceOptions(refresh=4))
    asked = []

    def describe(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        asked.append(len(rows))
        return np.eye(4)[rows]

    counts = []
    for frame in range(13):
        asked.clear()
        tracker([box(100 + frame), box(500 - frame)], [0.9, 0.9], describe)
        counts.append(sum(asked))
    assert counts == [0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0]


def test_classes_that_the_model_does_not_know_are_not_shown_to_it() -> None:
    seen: list[int] = []

    def embed(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
        seen.append(len(boxes))
        return np.ones((len(boxes), 2)) / np.sqrt(2)

    tracking = TrackedStream(embed=embed, names={"person"})
    found = Detections(
        np.array([box(0), box(200)], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([0, 1], np.int32),
        ("person", "car"),
    )
    for _ in range(3):
        assert tracking(found, np.zeros((200, 400, 3), np.uint8)).ids.tolist() == [1, 2]
    assert seen == [1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_fused_is_botsorts_formula(seed: int) -> None:
    chance = np.random.default_rng(seed)
    overlap, distance = chance.uniform(0, 1, (3, 4)), chance.uniform(0, 0.6, (3, 4))
    distance[chance.random((3, 4)) < 0.3] = np.nan
    found = 1 - fused(overlap, distance, AppearanceOptions(ratio=np.inf))
    for i, j in np.ndindex(3, 4):
        # https://arxiv.org/abs/2206.14651, equations 11 and 12.
        near = distance[i, j] < 0.25 and 1 - overlap[i, j] <= 0.5
        looks = 0.5 * distance[i, j] if near else 1.0
        assert found[i, j] == pytest.approx(min(1 - overlap[i, j], looks))


def test_looks_that_say_little_leave_it_to_overlap() -> None:
    overlap = np.array([[0.7, 0.0], [0.6, 0.0]])
    distance = np.array([[0.05, np.nan], [0.048, np.nan]])
    assert (fused(overlap, distance, AppearanceOptions()) == overlap).all()
    distance[1, 0] = 0.01
    assert fused(overlap, distance, AppearanceOptions())[1, 0] == pytest.approx(0.995)


def test_features_are_a_moving_average_of_length_one() -> None:
    mixed = averaged(row(1, 0), row(0, 1), 0.9)
    np.testing.assert_allclose(mixed, row(0.9, 0.1))


def test_crops_end_at_the_edge_of_the_picture_and_are_never_empty() -> None:
    shapes: list[tuple[int, ...]] = []

    def embed(crops: Crops) -> NDArray[np.float64]:
        shapes.extend(crop.shape for crop in crops)
        return np.zeros((len(crops), 2))

    boxes = np.array([[-5, -5, 4.2, 3], [98, 58, 130, 90], [200, 200, 210, 210]], np.float32)
    CropEmbedder(embed)(np.zeros((60, 100, 3), np.uint8), boxes)
    assert shapes == [(3, 5, 3), (2, 2, 3), (1, 1, 3)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for moment in video(people(assets / "data/coco128_val", 5), 3)[:6]:
        writer.write(moment.image)
    writer.release()
    return path


@pytest.fixture(scope="module")
def reid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean colours of 8 x 4 cells, as a network."""
    graph = GraphWriter({})
    x = graph.input("images", 1, 3, 64, 32)
    cells = graph.node("AveragePool", x, kernel_shape=[8, 8], strides=[8, 8])
    flat = graph.node("Flatten", cells, axis=1)
    graph.node("LpNormalization", flat, axis=1, to=graph.output("embedding", 1, 96))
    path = tmp_path_factory.mktemp("reid") / "reid.onnx"
    onnx.save(graph.model("reid"), path)
    return path


def test_a_stream_numbers_things_by_their_looks(
    assets: Path, film: Path, reid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, detector = tmp_path / "out.jsonl", str(assets / "models/yolov8n.onnx")
    command = ["stream", detector, str(film), "--track", "--reid", str(reid), "--jsonl", str(out)]
    assert main(command) == 0
    assert "is asked about person" in capsys.readouterr().err
    frames = [json.loads(line)["results"] for line in out.read_text().splitlines()]
    assert len(frames) == 6
    assert {record["track"] for record in frames[-1] if record["label"] == "person"} >= {1, 2}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"track": False}, "--reid goes with --track"),
        ({"reid_classes": ("elephnt",)}, "no class 'elephnt'"),
        ({"reid": None, "reid_classes": ("person",)}, "--reid-classes has no model"),
        ({"reid": "models/mobilenetv2.onnx"}, "does not tell what things look like"),
    ],
)
def test_what_does_not_go_together_is_refused(
    assets: Path, film: Path, reid: Path, options: dict, why: str
) -> None:
    given = {"track": True, "reid": str(reid)} | options
    if given["reid"] and given["reid"] != str(reid):
        given["reid"] = str(assets / given["reid"])
    with pytest.raises(RkzooError, match=why):
        stream(
            str(assets / "models/yolov8n.onnx"),
            str(film),
            StreamOutputs(jsonl=film.with_suffix(".jsonl")),
            options=StreamOptions(**given),
        )
