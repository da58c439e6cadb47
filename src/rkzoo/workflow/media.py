"""What a model is given: pictures, sounds or texts, named by the user, and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rkzoo.contract import Head
from rkzoo.errors import RkzooError
from rkzoo.files import explained
from rkzoo.heads import (
    ActivityHead,
    CtcSpeechHead,
    SentenceHead,
    SoundHead,
    TransducerHead,
    TranslateHead,
    VoiceHead,
    WhisperHead,
)
from rkzoo.workflow.pipeline_file import read_pipeline
from rkzoo.zoo.catalogue import card as find_card

_MOST_TEXT = 1 << 20  # bytes


@dataclass(frozen=True)
class Medium:
    """`expand` makes a list of what the user named, without reading it; `read` reads one.
    `file` is the path that a source lies at, None for one that lies nowhere. `several` is what
    a document calls the results, `gives` the file that is written for each, `written` the
    suffixes of such a file where its name may be given."""

    name: str
    several: str
    gives: str
    expand: Callable[[list[str]], Sequence[Any]]
    read: Callable[[Any], Any]
    file: Callable[[Any], Path | None] = Path
    written: frozenset[str] = frozenset()


def _pictures(names: list[str]) -> Sequence[Any]:
    from rkzoo.vision.image import expand

    return expand(names)


def _picture(source: Any) -> Any:
    from rkzoo.vision.image import read

    return read(source)


def _sounds(names: list[str]) -> Sequence[Any]:
    from rkzoo.audio.sound import expand

    return expand(names)


def _sound(source: Any) -> Any:
    from rkzoo.audio.sound import read

    return read(source)


@dataclass(frozen=True)
class Said:
    """A text: typed, or to be read from a file."""

    text: str = ""
    path: Path | None = None


def _texts(names: list[str]) -> list[Said]:
    """Each is a text file that is there, or the text itself."""
    found = []
    for name in names:
        path = Path(name)
        is_file = len(name) < 1024 and path.suffix.lower() in (".txt", ".md")
        if is_file and not path.is_file():
            raise RkzooError(f"There is no file {name}.", "", "Check the name.")
        found.append(Said(path=path) if is_file else Said(name))
    return found


def _file_of(source: Said | str) -> Path | None:
    return source.path if isinstance(source, Said) else None


def _text(source: Said | str) -> str:
    said = Said(source) if isinstance(source, str) else source
    text = said.text
    if said.path is not None:
        try:
            with explained(f"The text {said.path} cannot be read."):
                if said.path.stat().st_size > _MOST_TEXT:
                    raise RkzooError(f"{said.path} is too long.", "Texts end at 1 MiB.", "Cut it.")
                text = said.path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise RkzooError(
                f"The text {said.path} cannot be read.", "It is not UTF-8.", "Save it as UTF-8."
            ) from error
    if not text.strip():
        raise RkzooError("The text is empty.", "", "Give some words, or a .txt file.")
    return text


_DRAWN = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_TRANSCRIPTS = frozenset({".txt", ".srt", ".vtt", ".json"})
_TABLES = frozenset({".csv"})
_TEXTS = frozenset({".txt"})
_SPOKEN = frozenset({".wav", ".flac", ".ogg"})
_UNWRITTEN = frozenset({".mp3", ".opus", ".gif", ".pdf", ".mp4"})

PICTURE = Medium("picture", "images", "picture", _pictures, _picture, written=_DRAWN)
SOUND = Medium("sound", "sounds", "transcript", _sounds, _sound, written=_TRANSCRIPTS)
TEXT = Medium("text", "texts", "output", _texts, _text, _file_of, _TEXTS)
_HEARD = replace(SOUND, gives="timeline", written=_TABLES)
_SAID = replace(TEXT, gives="sound", written=_SPOKEN)

FILES = _DRAWN | _TRANSCRIPTS | _TABLES | _TEXTS | _SPOKEN | _UNWRITTEN
"""Suffixes that nobody gives a folder."""

_OF_HEAD: dict[type[Any], Medium] = {
    ActivityHead: _HEARD,
    CtcSpeechHead: SOUND,
    SoundHead: _HEARD,
    TransducerHead: SOUND,
    WhisperHead: SOUND,
    VoiceHead: _SAID,
    SentenceHead: TEXT,
    TranslateHead: TEXT,
}


def of_head(head: Head | None) -> Medium:
    """What a model or pipeline takes, by its head: pictures, where nothing else is known."""
    return _OF_HEAD.get(type(head), PICTURE)


def medium_of(model: str) -> Medium:
    """What a model takes, by its card or by what a converted file says; a graph of one's own
    takes pictures. Raises RkzooError for a name that is not known."""
    path = Path(model)
    suffix = path.suffix.lower()
    from rkzoo.workflow.makers import is_model_file

    if is_model_file(model):
        return PICTURE
    if suffix == ".json":
        return of_head(read_pipeline(path).head)
    if suffix == ".rknn":
        with suppress(RkzooError):  # what is wrong with it is said where it is opened
            from rkzoo.workflow.board import contract_of

            return of_head(contract_of(path).head)
        return PICTURE
    return of_head(find_card(model).head)
