"""Compact records of a model's results during an evaluation: arrays, one record per image.

Every record has `size` (2,) int32: height and width of the image. In addition:
- boxes: `xyxy` (N, 4) float32 in source pixels, `score` (N,) float32, `class_id` (N,) int32;
- masks: as boxes, and `rle` uint8, the concatenated COCO RLE codes, `rle_length` (N,) int32;
- keypoints: as boxes, and `keypoints` (N, K, 3) float32;
- oriented boxes: `xywhr` (N, 5) float32 instead of `xyxy`;
- lines: `quads` (N, 4, 2) float32, `score` (N,), `text` uint8, the concatenated UTF-8 texts,
  `text_length` (N,) int32; for text detection only the quads and scores;
- class maps: `class_id` (N,) int32 and `run` (N,) int32, run lengths in pixels, row by row;
- classes: `class_id` (N,) int32 and `score` (N,), best first;
- embeddings: `embedding` (D,) float32, of the best face, none where nothing was found;
- pictures: `pixels` (N,) uint8, the picture that was made, BGR, row by row;
- speech: one line with an empty quad; the size is 0.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy import rle
from rkzoo.kept import keep, kept
from rkzoo.tasks.segment.result import Masks
from rkzoo.tasks.speech.transcript import Transcript
from rkzoo.tasks.text.result import TextLines

Record = dict[str, NDArray[Any]]


@runtime_checkable
class Recordable(Protocol):
    """A result that provides its own record, except for `size`."""

    def record(self) -> Record: ...


def pack(value: object, shape: tuple[int, int]) -> Record:
    """Convert a result to its record.

    Args:
        value: the result of one image.
        shape: (height, width) of the image.

    Raises:
        TypeError: the result type cannot be evaluated.
    """
    size = {"size": np.array(shape[:2], np.int32)}
    if isinstance(value, Recordable):
        return {**value.record(), **size}
    for kind, packer in _PACKERS:
        if isinstance(value, kind):
            return {**packer(value), **size}
    raise TypeError(f"no record is known for {type(value).__name__}")


def pack_texts(
    texts: Sequence[str], scores: Sequence[float], shape: tuple[int, int], quads: Any = None
) -> Record:
    """Create the record of recognized lines. `quads` (N, 4, 2); None for the whole image."""
    height, width = shape[:2]
    if quads is None:
        whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        quads = np.repeat(whole[None], len(texts), axis=0)
    return {
        "size": np.array(shape[:2], np.int32),
        "quads": np.asarray(quads, np.float32),
        "score": np.asarray(scores, np.float32),
        **_joined("text", [text.encode("utf-8", "replace") for text in texts]),
    }


def pack_classes(scores: NDArray[Any], shape: tuple[int, int], top: int = 5) -> Record:
    """Create the record of a classification: the `top` best of `scores` (C,); ties go to the lower
    class."""
    best = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:top]
    return {
        "size": np.array(shape[:2], np.int32),
        "class_id": best.astype(np.int32),
        "score": np.asarray(scores, np.float32)[best],
    }


def texts_of(record: Record) -> list[str]:
    """Texts of a record of lines."""
    return [piece.decode("utf-8", "replace") for piece in _pieces(record, "text")]


def codes_of(record: Record) -> list[bytes]:
    """COCO RLE codes of a record of masks."""
    return _pieces(record, "rle")


def class_map(record: Record) -> NDArray[np.uint8]:
    """Class map (H, W) uint8 of a record."""
    height, width = record["size"].tolist()
    return np.repeat(record["class_id"], record["run"]).astype(np.uint8).reshape(height, width)


def save(path: Path, records: Sequence[Record]) -> None:
    """Write records, which must have the same keys, to one .npz.

    Raises:
        RkzooError: the file cannot be written.
        ValueError: the keys differ.
    """
    keys = sorted(records[0]) if records else []
    if any(sorted(record) != keys for record in records):
        raise ValueError("records of one file must have the same keys")
    arrays: Record = {_COUNT: np.array(len(records), np.int64)}
    for key in keys:
        parts = [record[key] for record in records]
        # Records without objects may lack the number of keypoints.
        shaped = [part for part in parts if len(part)] or parts[:1]
        arrays[key] = np.concatenate(shaped)
        arrays[_ROWS + key] = np.array([len(part) for part in parts], np.int64)
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    keep(Path(path), packed.getvalue())


def load(path: Path) -> list[Record] | None:
    """Read records written by `save`; None where there are none, or none that are whole."""
    data = kept(Path(path))
    if data is None:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        return list(_records(arrays))
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, AttributeError):
        return None  # kept by another version


_COUNT = "count"
_ROWS = "rows:"


def _records(arrays: Record) -> Iterator[Record]:
    count = int(arrays[_COUNT])
    keys = [key for key in arrays if key != _COUNT and not key.startswith(_ROWS)]
    split: Record = {}
    for key in keys:
        rows = arrays[_ROWS + key]
        if rows.shape != (count,) or (rows < 0).any() or rows.sum() != len(arrays[key]):
            raise ValueError(key)
        split[key] = np.concatenate(([0], np.cumsum(rows)))
    for i in range(count):
        record = {key: arrays[key][split[key][i] : split[key][i + 1]] for key in keys}
        check_record(record)
        yield record


def check_record(record: Record) -> None:
    """Validate what the metrics rely on. Raises ValueError, KeyError or TypeError."""
    if record["size"].shape != (2,):
        raise ValueError("size")
    rows = {len(record[key]) for key in record if key not in ("size", "rle", "text")}
    if len(rows) > 1:
        raise ValueError("arrays of one picture differ in length")
    for key in ("rle", "text"):
        if key in record:
            _pieces(record, key)


def _pieces(record: Record, key: str) -> list[bytes]:
    lengths = record[f"{key}_length"]
    ends = np.cumsum(lengths)
    whole = record[key].astype(np.uint8, copy=False).tobytes()
    if (lengths < 0).any() or (ends[-1] if len(ends) else 0) != len(whole):
        raise ValueError(key)
    return [
        whole[end - length : end]
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]


def _joined(key: str, pieces: Sequence[bytes]) -> Record:
    whole = np.array(bytearray(b"".join(pieces)), np.uint8)
    return {key: whole, f"{key}_length": np.array([len(piece) for piece in pieces], np.int32)}


def _masks(masks: Masks) -> Record:
    codes = [
        rle.encode(crop, (x, y), masks.size)
        for (x, y), crop in zip(masks.corners.tolist(), masks.crops, strict=True)
    ]
    return {**masks.boxes.record(), **_joined("rle", codes)}


def _lines(text_lines: TextLines) -> Record:
    return pack_texts(text_lines.texts, text_lines.scores.tolist(), (0, 0), text_lines.quads)


def _speech(transcript: Transcript) -> Record:
    return pack_texts([transcript.text], [1.0], (0, 0))


# Result types packed here; all others provide their own record.
_PACKERS: tuple[tuple[type, Callable[[Any], Record]], ...] = (
    (Masks, _masks),
    (TextLines, _lines),
    (Transcript, _speech),
)
