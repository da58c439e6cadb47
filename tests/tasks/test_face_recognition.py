"""Faces with names: aligned as OpenCV aligns them, compared with a folder of known ones."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from rkzoo.contract.faces import CentreFaceHead, FaceRecognitionHead
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.progress import NoteKeeper
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.align import aligned
from rkzoo.tasks.face.known import KnownFaces, known_faces
from rkzoo.tasks.face.recognize import FaceRecognizer, _main_first, face_recognizer
from rkzoo.tasks.face.result import Faces, RecognizedFaces
from rkzoo.tasks.spec import TaskOptions, TaskParts
from rkzoo.tasks.vector.task import Measurer
from rkzoo.vision.image import write
from upstream_networks import network

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]], np.float32,
)  # fmt: skip


def test_faces_are_aligned_as_opencv_aligns_them(tmp_path: Path) -> None:
    file = tmp_path / "any.onnx"  # whose network is not run
    file.write_bytes(network("yunet").SerializeToString())
    recognizer = cv2.FaceRecognizerSF.create(str(file), "")
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (300, 400, 3), np.uint8)
    picture = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8)
    for _ in range(20):
        angle, scale = random.uniform(-1, 1), random.uniform(0.3, 2.5)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = TEMPLATE @ turn.T + random.uniform(0, 200, 2) + random.normal(0, 3, (5, 2))
        face = np.zeros((1, 15), np.float32)
        face[0, 4:14] = points.ravel()
        expected = recognizer.alignCrop(picture, face).astype(int)
        found = aligned(picture, points.astype(np.float32)[None])[0].astype(int)
        assert np.abs(expected - found).max() <= 2
        assert (np.abs(expected - found) <= 1).mean() > 0.999


# ---- a folder of known faces --------------------------------------------------------------

SIZE = 4


def colour(value: int) -> np.ndarray:
    return np.full((40, 40, 3), value, np.uint8)


def by_colour(picture: np.ndarray) -> np.ndarray:
    """As many faces as the colour says, each a direction of its own."""
    count = int(picture[0, 0, 0]) // 100
    return np.eye(SIZE, dtype=np.float32)[:count]


def test_names_come_from_files_and_folders_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    for name in ("ann.png", "ben/1.png", "ben/2.png", "two.png", "none.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, colour({"two.png": 200, "none.png": 0}.get(name, 100)))
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    notes = NoteKeeper()
    known = known_faces(tmp_path, by_colour, report=notes)
    assert known.persons == ("ann", "ben", "two")
    assert known.person.tolist() == [0, 1, 1, 2]
    assert known.embeddings.tolist() == [[1, 0, 0, 0]] * 4
    said = "\n".join(notes.notes)
    assert len(notes.notes) == 3
    assert "broken.jpg is not a picture" in said
    assert "none.png is left out: no face" in said
    assert "two.png shows 2 faces: the largest of the sure ones is taken for two" in said


@pytest.mark.parametrize(("files", "what"), [([], "holds no known faces"), ([0], "No face was")])
def test_a_folder_without_faces_is_refused(files: list[int], what: str, tmp_path: Path) -> None:
    for value in files:
        write(tmp_path / f"{value}.png", colour(value))
    with pytest.raises(RkzooError, match=what):
        known_faces(tmp_path, by_colour)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="of known faces cannot be read"):
        known_faces(tmp_path / "nowhere", by_colour)


def test_embeddings_are_kept_by_model_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "known"
    folder.mkdir()
    write(folder / "ann.png", colour(100))
    made: list[int] = []

    def counted(picture: np.ndarray) -> np.ndarray:
        made.append(1)
        return by_colour(picture)

    first = known_faces(folder, counted, "a" * 64)
    os.rename(folder / "ann.png", folder / "ben.png")
    again = known_faces(folder, counted, "a" * 64)
    assert len(made) == 1
    assert (again.persons, again.embeddings.tolist()) == (("ben",), first.embeddings.tolist())
    known_faces(folder, counted, "b" * 64)
    write(folder / "ben.png", colour(120))
    known_faces(folder, counted, "a" * 64)
    assert len(made) == 3


# ---- whose they are -----------------------------------------------------------------------


class Mean:
    """A session whose embedding is the mean colour of its picture, (blue, green, red)."""

    label = "onnx"
    inputs = ()
    outputs = (TensorSpec(name="o", shape=(1, 3), dtype="float32"),)

    def __init__(self) -> None:
        self.fed: list[np.ndarray] = []

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self.fed.append(arrays[0].copy())
        return [arrays[0].reshape(-1, 3).mean(axis=0, dtype=np.float32)[None]]


RECOGNIZER = Contract(
    family="embedding",
    picture=ImageInput(size=(112, 112), color="BGR", std=(1.0, 1.0, 1.0), fit="stretch"),
    head=VectorHead(size=3),
)


def three_faces(picture: np.ndarray) -> Faces:
    """Upright faces at 0, 112 and 224."""
    places = np.array([0, 112, 224], np.float32)
    points = TEMPLATE + np.stack((places, np.zeros(3, np.float32)), axis=1)[:, None]
    boxes = np.stack((places, places * 0, places + 112, places * 0 + 112), axis=1)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    return Faces(Detections(boxes, scores, np.zeros(3, np.int32), ("face",)), points)


def picture_of(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.concatenate([np.full((112, 112, 3), c, np.uint8) for c in colours], axis=1)


def test_each_face_has_the_name_of_the_nearest_known_one_or_none() -> None:
    known = KnownFaces(
        ("ann", "ben"),
        np.array([1, 0, 1], np.int32),
        np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], np.float32),
    )
    session = Mean()
    task = FaceRecognizer(three_faces, Measurer(RECOGNIZER, session), 0.9, known)  # type: ignore[arg-type]
    found = task(picture_of((200, 0, 0), (0, 100, 40), (50, 0, 250)))
    assert len(session.fed) == 3  # each face is aligned and fed once, as it is
    # The very crop, but for the template's own thousandths of a pixel.
    assert session.fed[0][0, 56, 56].tolist() == [200, 0, 0]
    assert found.names == ["ben", "ann", "ben"]
    expected = [1.0, 100 / np.hypot(100, 40), (0.6 * 50 + 0.8 * 250) / np.hypot(50, 250)]
    assert found.cosine == pytest.approx(expected, abs=0.01)
    records = found.to_json()
    assert [record["label"] for record in records] == ["ben", "ann", "ben"]
    assert records[1]["cosine"] == pytest.approx(expected[1], abs=0.01)
    assert "embedding" not in records[0]
    assert found.lines()[1].startswith("ann  ")
    strict = FaceRecognizer(three_faces, Measurer(RECOGNIZER, session), 0.999, known)  # type: ignore[arg-type]
    assert strict(picture_of((200, 0, 0), (0, 100, 40), (50, 0, 250))).names == [
        "ben", "unknown", "unknown",
    ]  # fmt: skip
    last = found[2]
    assert isinstance(last, RecognizedFaces)
    assert (last.names, len(last.embeddings), last.cosine.tolist()) == (
        ["ben"], 1, [found.cosine[2]],
    )  # fmt: skip
    assert (found.draw(picture_of((0, 0, 0), (0, 0, 0), (0, 0, 0))) > 0).any()


def test_without_known_faces_there_are_embeddings() -> None:
    task = FaceRecognizer(three_faces, Measurer(RECOGNIZER, Mean()), 0.5)  # type: ignore[arg-type]
    found = task(picture_of((200, 0, 0), (0, 100, 0), (0, 0, 250)))
    assert found.embeddings == pytest.approx(np.eye(3), abs=1e-6)
    assert found.names == ["face"] * 3
    assert found.to_json()[0]["embedding"] == [1, 0, 0]
    none = FaceRecognizer(lambda picture: three_faces(picture)[:0], Measurer(RECOGNIZER, Mean()), 0)  # type: ignore[arg-type]
    assert none(picture_of((1, 1, 1))).embeddings.shape == (0, 3)


def test_no_faces_with_known_ones_is_no_error() -> None:
    known = KnownFaces(("ann",), np.zeros(1, np.int32), np.eye(3, dtype=np.float32)[:1])
    task = FaceRecognizer(
        lambda picture: three_faces(picture)[:0],
        Measurer(RECOGNIZER, Mean()),  # type: ignore[arg-type]
        0.5,
        known,
    )
    found = task(picture_of((1, 1, 1)))
    assert (len(found), found.to_json(), found.lines()) == (0, [], [])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"detector": None}, "no detector"),
        ({"recognizer": None}, "no recognizer"),
        ({"detector": RECOGNIZER}, "finds no faces with five points"),
        (
            {"recognizer": msgspec.structs.replace(RECOGNIZER, head=CentreFaceHead())},
            "gives no vector",
        ),
        (
            {"recognizer": msgspec.structs.replace(RECOGNIZER, picture=ImageInput(size=(96, 112)))},
            "recognises no faces",
        ),
    ],
)
def test_parts_of_another_kind_are_refused(change: dict[str, Contract | None], what: str) -> None:
    detector = Contract(
        family="centerface", picture=ImageInput(size=(64, 64)), head=CentreFaceHead()
    )
    parts = {"detector": detector, "recognizer": RECOGNIZER} | change
    opened = {role: (part, Mean()) for role, part in parts.items() if part is not None}
    with pytest.raises(RkzooError, match=what):
        face_recognizer(TaskParts(FaceRecognitionHead(), opened, {}), TaskOptions())  # type: ignore[arg-type]


def test_a_large_doubtful_find_is_not_taken_for_a_persons_face() -> None:
    boxes = np.array([[0, 0, 200, 300], [10, 10, 90, 110], [100, 10, 220, 160]], np.float32)
    scores = np.array([0.635, 0.939, 0.9], np.float32)
    found = Faces(Detections(boxes, scores, np.zeros(3, np.int32)), np.zeros((3, 5, 2), np.float32))
    assert _main_first(found).tolist() == [2, 1, 0]
    assert _main_first(found[[]]).tolist() == []
