"""Small models for the stand-in of Rockchip's library, which takes as long as one wants."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from graph.rknn_writer import Sample
from npu_standin.recording import In, Out, Recording
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.workflow.compile.convert import custom_string

SIZE, CLASSES = 32, 10


def classifier(
    path: Path, *, ms: float = 0.0, best: int = 3, cores: int = 3, batch: int = 1
) -> Path:
    """A classifier that finds `best` in whatever it is shown, after `ms` milliseconds; in the
    next samples of a batch the next classes."""
    picture = ImageInput(size=(SIZE, SIZE))
    contract = Contract(family="tiny", picture=picture, head=ClassifyHead(classes=CLASSES))
    scores = np.full((batch, CLASSES), -100, np.int8)
    scores[range(batch), np.arange(best, best + batch) % CLASSES] = 100
    taken = In("images", (batch, SIZE, SIZE, 3))
    out = Out("scores", scores.shape, "int8", 0.1, 0)
    recording = Recording((taken,), [out], cores=cores, delay_us=int(ms * 1000))
    recording.answer([np.zeros(taken.shape, np.uint8)], [scores])
    data = recording.bytes(Sample(custom=custom_string(contract)).write())
    # Moved into place, as whoever replaces a model should.
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)
    return path


def picture() -> bytes:
    """A small PNG."""
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    encoded: bytes = cv2.imencode(".png", image)[1].tobytes()
    return encoded
