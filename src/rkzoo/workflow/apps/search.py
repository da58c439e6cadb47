"""Semantic search in images or text lines, with cached embeddings."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.kept import keep, kept, kept_folder
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Label
from rkzoo.tasks.embed.result import Passage
from rkzoo.vision.sheet import contact_sheet
from rkzoo.workflow.inference.inputs import PICTURE, TEXT_SUFFIXES, input_kind_of_head
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.plan import Plan, models_digest, plan
from rkzoo.workflow.request.request import Request

Embeddings = NDArray[np.float32]
SHOWN = 12
"""Maximum number of images on a contact sheet."""


@runtime_checkable
class Searchable(Protocol):
    """A task usable for search: `embed` gives one row per passage of a source, `embed_text` one per
    query; all rows are L2-normalized. Passages below the cosine `near` have nothing to do with the
    query.
    """

    near: float

    def passages(self, provided: Any) -> tuple[Passage, ...]: ...

    def embed(self, provided: Any) -> Embeddings: ...

    def embed_text(self, words: Sequence[str]) -> Embeddings: ...


@dataclass(frozen=True)
class Hit:
    """A passage that has to do with the query.

    Attributes:
        file: where it is; None for a text that lies in no file.
        line: its line there, from 1; None for a picture.
        text: its words; "" for a picture.
        cosine: similarity in -1..1.
    """

    file: Path | None
    line: int | None
    text: str
    cosine: float

    @property
    def place(self) -> str:
        """`notes/dogs.md:12`."""
        place = str(self.file) if self.file else "text"
        return place if self.line is None else f"{place}:{self.line}"

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "file": str(self.file) if self.file else None,
            "line": self.line,
            "text": self.text,
            "cosine": round(self.cosine, 4),
        }


@dataclass(frozen=True)
class SearchResults:
    """Search results.

    Attributes:
        words: the query.
        hits: best first; without those that have nothing to do with the query.
        passages: number of passages compared.
        best: the highest cosine, also where it is no hit.
        near: cosine from which a passage is a hit.
        runtime: backend.
        kept: number of sources whose embeddings came from the cache.
        failed: sources that could not be read, with the reason.
    """

    words: str
    hits: tuple[Hit, ...]
    passages: int
    best: float
    near: float
    runtime: Label
    kept: int
    failed: tuple[tuple[Path, RkzooError], ...] = ()

    def sheet(self) -> NDArray[np.uint8]:
        """Contact sheet of the best images, BGR, with cosine and name."""
        from rkzoo.vision.image import read

        shown = [(hit.cosine, hit.file) for hit in self.hits[:SHOWN] if hit.file is not None]
        captions = [f"{cosine:.3f}  {path.name}" for cosine, path in shown]
        return contact_sheet([read(path) for _, path in shown], captions)


def search(
    model: str | os.PathLike[str],
    sources: Sequence[Any],
    words: str,
    request: Request | None = None,
    report: ProgressReporter = SILENT,
) -> SearchResults:
    """Rank the passages of all sources by similarity to a query.

    Args:
        model: card name or file of an embedding model.
        sources: image paths, or texts as the input kind expands them.
        words: the query.
        request: runtime and options of the model.
        report: receives progress.

    Raises:
        RkzooError: an empty query, a model without embeddings, or no source that can be read.
    """
    if not words.strip():
        raise RkzooError("There is nothing to search for.", "The words are empty.", "Give some.")
    planned = plan(model, request, report)
    input_kind = input_kind_of_head(planned.head)
    failed: list[tuple[Path, RkzooError]] = []
    embeddings: list[Embeddings] = []
    passages: list[tuple[Path | None, Passage]] = []
    with ExitStack() as stack:
        task = open_task(planned, stack, report=report)
        if not isinstance(task, Searchable):
            raise RkzooError(
                f"{planned.name} cannot search.",
                "It makes no embeddings that could be compared with those of words.",
                "Use clip for pictures, or minilm for texts.",
            )
        # Embed the query first, to fail before a whole folder is read.
        query = task.embed_text([words])[0]
        kept_rows = _EmbeddingCache(planned)
        with report.task(
            "Reading what is searched", len(sources), unit=input_kind.several
        ) as progress:
            for done, source in enumerate(sources, 1):
                path = input_kind.file(source)
                read = partial(input_kind.read, source)
                try:
                    if path is None or not _is_blank(path):
                        rows = kept_rows.rows(
                            sha256_of(path) if path else _digest(read()), task, read
                        )
                        # A picture is one passage, so it need not be read for that.
                        seen = None if input_kind is PICTURE else read()
                        found = (Passage(""),) if seen is None else task.passages(seen)
                        embeddings.append(rows)
                        passages += [(path, passage) for passage in found]
                except RkzooError as error:
                    if path is None:
                        raise
                    failed.append((path, error))
                progress.update(done)
    kept_rows.tell(report)
    if failed and not passages:
        raise failed[0][1]
    cosine = np.concatenate(embeddings) @ query if embeddings else np.zeros(0, np.float32)
    order = np.argsort(-cosine, kind="stable").tolist()
    hits = tuple(
        Hit(passages[i][0], passages[i][1].line, passages[i][1].text, float(cosine[i]))
        for i in order
        if cosine[i] >= task.near
    )
    return SearchResults(
        words=words,
        hits=hits,
        passages=len(passages),
        best=float(cosine.max(initial=-1.0)),
        near=task.near,
        runtime=planned.label,
        kept=kept_rows.hits,
        failed=tuple(failed),
    )


def _is_blank(path: Path) -> bool:
    """Whether a text has no words: nothing is found in it, and nothing is wrong with it."""
    with suppress(OSError):
        return path.suffix.lower() in TEXT_SUFFIXES and not path.read_bytes().strip()
    return False


class _EmbeddingCache:
    """Embedding cache, keyed by model and content."""

    def __init__(self, planned: Plan) -> None:
        self._folder = kept_folder("embeddings", models_digest(planned)[:32])
        self.hits = self._damaged = 0

    def rows(self, digest: str, task: Searchable, read: Callable[[], Any]) -> Embeddings:
        file = self._folder / f"{digest}.npy"
        there = os.path.lexists(file)
        known = kept(file)
        self._damaged += there and known is None
        if known is not None:
            self.hits += 1
            rows: Embeddings = np.load(io.BytesIO(known), allow_pickle=False)
            return rows
        rows = task.embed(read())
        packed = io.BytesIO()
        np.save(packed, rows)
        keep(file, packed.getvalue())
        return rows

    def tell(self, report: ProgressReporter) -> None:
        """Say why what was searched before took time again."""
        if self._damaged:
            report.note(
                f"{self._damaged} of the embeddings kept in {self._folder} were damaged; they were "
                "made again."
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
