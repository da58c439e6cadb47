"""Semantic search in images or text lines, with cached embeddings."""

from __future__ import annotations

import hashlib
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
from rkzoo.files import atomic_output, cache_dir, package_digest, sha256_of
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Label
from rkzoo.tasks.embed.result import SimilarityScores
from rkzoo.vision.sheet import contact_sheet
from rkzoo.workflow.inference.inputs import PICTURE, input_kind_of_head
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.plan import Plan, plan
from rkzoo.workflow.request.request import Request

Embeddings = NDArray[np.float32]
SHOWN = 12
"""Maximum number of images on a contact sheet."""


@runtime_checkable
class Searchable(Protocol):
    """A task usable for search: `embed` gives one row per passage of a source, `meant` one per
    query; all rows are L2-normalized.
    """

    def passages(self, provided: Any) -> tuple[str, ...]: ...

    def embed(self, provided: Any) -> Embeddings: ...

    def embed_text(self, words: Sequence[str]) -> Embeddings: ...


@dataclass(frozen=True)
class SearchResults:
    """Search results.

    Attributes:
        words: the query.
        alike: ranked passages.
        sources: file of each result.
        runtime: backend.
        kept: number of sources whose embeddings came from the cache.
    """

    words: str
    alike: SimilarityScores
    sources: tuple[Path | None, ...]
    runtime: Label
    kept: int

    def sheet(self) -> NDArray[np.uint8]:
        """Contact sheet of the best images, BGR, with cosine and name."""
        from rkzoo.vision.image import read

        best = [path for path in self.sources[:SHOWN] if path is not None]
        cosines = self.alike.cosine[:SHOWN].tolist()
        captions = [f"{c:.3f}  {path.name}" for c, path in zip(cosines, best, strict=True)]
        return contact_sheet([read(path) for path in best], captions)


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
        RkzooError: an empty query, or a model without embeddings.
    """
    if not words.strip():
        raise RkzooError("There is nothing to search for.", "The words are empty.", "Give some.")
    planned = plan(model, request, report)
    input_kind = input_kind_of_head(planned.head)
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
        kept = _EmbeddingCache(planned)
        embeddings: list[Embeddings] = []
        names: list[str] = []
        places: list[Path | None] = []
        with report.task(
            "Reading what is searched", len(sources), unit=input_kind.several
        ) as progress:
            for done, source in enumerate(sources, 1):
                path = input_kind.file(source)
                read = partial(input_kind.read, source)
                rows = kept.rows(sha256_of(path) if path else _digest(read()), task, read)
                embeddings.append(rows)
                names += [str(path)] if input_kind is PICTURE else task.passages(read())
                places += [path] * len(rows)
                progress.update(done)
    cosine = np.concatenate(embeddings) @ query
    order = np.argsort(-cosine, kind="stable").tolist()
    alike = SimilarityScores(tuple(names[i] for i in order), cosine[order])
    return SearchResults(words, alike, tuple(places[i] for i in order), planned.label, kept.hits)


class _EmbeddingCache:
    """Embedding cache, keyed by model and content."""

    def __init__(self, planned: Plan) -> None:
        made_by = hashlib.sha256(package_digest().encode())
        for role, part in sorted(planned.parts.items()):
            made_by.update(f"{role} {part.contract} {part.backend.digest}".encode())
        self._folder = cache_dir("embeddings", made_by.hexdigest()[:32])
        self.hits = 0

    def rows(self, digest: str, task: Searchable, read: Callable[[], Any]) -> Embeddings:
        file = self._folder / f"{digest}.npy"
        # Recompute unreadable (for example truncated) files.
        with suppress(OSError, ValueError, EOFError):
            rows: Embeddings = np.load(file, allow_pickle=False)
            self.hits += 1
            return rows
        rows = task.embed(read())
        with atomic_output(file) as part:
            np.save(part, rows)
        return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
