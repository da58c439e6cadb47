"""What a model is given: pictures, sounds or texts, named by the user, and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.contract.model import Contract, Head
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.spec import InputName, OutputName
from rkzoo.workflow.request.pipeline_file import read_pipeline
from rkzoo.zoo.catalogue import card as find_card

if TYPE_CHECKING:
    from rkzoo.workflow.inference.plan import Plan

_MOST_TEXT = 1 << 20  # bytes
TEXT_SUFFIXES = (".txt", ".md")
_LONGEST_NAME = 1024  # characters: what is longer is a text, and the system takes no such name


@dataclass(frozen=True)
class InputKind:
    """`expand` makes a list of what the user named, without reading it; `read` reads one, and
    `decode` the bytes of one, with its name.
    `file` is the path that a source lies at, None for one that lies nowhere. `several` is what
    a document calls the results, `gives` the file that is written for each, `written` the
    suffixes of such a file where its name may be given."""

    name: str
    several: str
    gives: str
    expand: Callable[[list[str]], Sequence[Any]]
    read: Callable[[Any], Any]
    file: Callable[[Any], Path | None] = Path
    decode: Callable[[bytes, Path], Any] = lambda data, path: data
    written: frozenset[str] = frozenset()


def _pictures(names: list[str]) -> Sequence[Any]:
    from rkzoo.vision.image import expand

    return expand(names)


def _picture(source: Any) -> Any:
    from rkzoo.vision.image import read

    return read(source)


def _picture_bytes(data: bytes, path: Path) -> Any:
    from rkzoo.vision.image import from_bytes

    return from_bytes(data, path)


def _with_alpha(source: Any) -> Any:
    from rkzoo.vision.image import read

    return read(source, alpha=True)


def _bytes_with_alpha(data: bytes, path: Path) -> Any:
    from rkzoo.vision.image import from_bytes

    return from_bytes(data, path, alpha=True)


def _sounds(names: list[str]) -> Sequence[Any]:
    from rkzoo.audio.sound import expand

    return expand(names)


def _sound(source: Any) -> Any:
    from rkzoo.audio.sound import read

    return read(source)


def _sound_bytes(data: bytes, path: Path) -> Any:
    from rkzoo.audio.sound import decode

    return decode(data, path)


@dataclass(frozen=True)
class TextSource:
    """A text: typed, or to be read from a file."""

    text: str = ""
    path: Path | None = None


def _texts(names: list[str]) -> list[TextSource]:
    """Each is a text file that is there, a folder or glob of such, or the text itself. Raises
    RkzooError for a name of a file that is no text, or of none."""
    return [text_source for name in names for text_source in _named(name)]


def _named(name: str) -> list[TextSource]:
    path = Path(name).expanduser()
    if len(name) >= _LONGEST_NAME:
        return [TextSource(name)]
    is_text = path.suffix.lower() in TEXT_SUFFIXES
    if path.is_dir():
        files = sorted(path for path in path.iterdir() if path.suffix.lower() in TEXT_SUFFIXES)
    elif path.is_file() and not is_text:
        raise RkzooError(
            f"{name} is no file of text.",
            f"Text is read from {' and '.join(TEXT_SUFFIXES)}.",
            "Give one of these, or the words themselves.",
        )
    elif path.is_file():
        files = [path]
    elif is_text:
        files = [Path(match) for match in sorted(glob(str(path), recursive=True))]
    else:
        return [TextSource(name)]
    if not files:
        raise RkzooError(
            f"There is no text at {name}.",
            f"Text is read from {' and '.join(TEXT_SUFFIXES)}.",
            "Check the name.",
        )
    return [TextSource(path=file) for file in files]


def _file_of(source: TextSource | str) -> Path | None:
    return source.path if isinstance(source, TextSource) else None


def _text(source: TextSource | str) -> str:
    text_source = TextSource(source) if isinstance(source, str) else source
    text = text_source.text
    if text_source.path is not None:
        try:
            with os_errors_explained(f"The text {text_source.path} cannot be read."):
                if text_source.path.stat().st_size > _MOST_TEXT:
                    raise RkzooError(
                        f"{text_source.path} is too long.", "Texts end at 1 MiB.", "Cut it."
                    )
                text = read_text(text_source.path)
        except UnicodeDecodeError as error:
            raise RkzooError(
                f"The text {text_source.path} cannot be read.",
                "It is not UTF-8.",
                "Save it as UTF-8.",
            ) from error
    if not text.strip():
        raise RkzooError(
            "The text is empty.", "There is nothing to work on.", "Give some words, or a .txt file."
        )
    return text


def _text_bytes(data: bytes, path: Path) -> str:
    if len(data) > _MOST_TEXT:
        raise RkzooError(f"{path} is too long.", "Texts end at 1 MiB.", "Cut it.")
    try:
        return _text(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RkzooError(
            f"The text {path} cannot be read.", "It is not UTF-8.", "Send it as UTF-8."
        ) from error


_DRAWN = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_VECTORS = frozenset({".npy", ".json", ".txt"})
_TRANSCRIPTS = frozenset({".txt", ".srt", ".vtt", ".json"})
_TABLES = frozenset({".csv"})
_TEXTS = frozenset({".txt"})
_ARRAYS = frozenset({".npz", ".npy"})
_SPOKEN = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".pcm"})
_UNWRITTEN = frozenset({".m4a", ".aac", ".gif", ".pdf", ".mp4"})

PICTURE = InputKind(
    "picture", "images", "picture", _pictures, _picture, decode=_picture_bytes, written=_DRAWN
)
TRANSPARENT = replace(PICTURE, read=_with_alpha, decode=_bytes_with_alpha)
"""Pictures for a model that takes their alpha, too."""
SOUND = InputKind(
    "sound", "sounds", "transcript", _sounds, _sound, decode=_sound_bytes, written=_TRANSCRIPTS
)
TEXT = InputKind("text", "texts", "output", _texts, _text, _file_of, _text_bytes, _TEXTS)
TENSORS = InputKind("tensors", "samples", "output", list, lambda name: name, written=_ARRAYS)
_MEASURED = replace(PICTURE, gives="vector", written=_VECTORS)
_HEARD = replace(SOUND, gives="timeline", written=_TABLES)
_SAID = replace(TEXT, gives="sound", written=_SPOKEN)

FILES = _DRAWN | _TRANSCRIPTS | _TABLES | _TEXTS | _ARRAYS | _SPOKEN | _UNWRITTEN
"""Suffixes that nobody gives a folder."""

_MEDIA: dict[tuple[InputName, OutputName], InputKind] = {
    ("picture", "picture"): PICTURE,
    ("picture", "vector"): _MEASURED,
    ("sound", "transcript"): SOUND,
    ("sound", "timeline"): _HEARD,
    ("text", "output"): TEXT,
    ("text", "sound"): _SAID,
    ("tensors", "tensors"): TENSORS,
}


def input_kind_of_head(head: Head | None) -> InputKind:
    """What a model or pipeline takes, by its head: pictures, where nothing else is known."""
    spec = spec_of(head)
    return _MEDIA[spec.input_kind, spec.output_kind]


def seen_by(input_kind: InputKind, contracts: Iterable[Contract]) -> InputKind:
    """What models of these contracts are given, who take what `medium` is: with its alpha where
    one of them looks at that."""
    images = (contract.picture for contract in contracts)
    alpha = any(image is not None and image.channels == 4 for image in images)
    if not alpha or input_kind.name != PICTURE.name:
        return input_kind
    return replace(input_kind, read=TRANSPARENT.read, decode=TRANSPARENT.decode)


def of_plan(planned: Plan) -> InputKind:
    """What a plan takes: of plain tensors, samples of the inputs that its contract names."""
    kind = input_kind_of_head(planned.head)
    if kind is not TENSORS:
        return seen_by(kind, (part.contract for part in planned.parts.values()))
    from rkzoo.workflow.request import samples

    contract = planned.parts["model"].contract
    return replace(
        TENSORS,
        expand=partial(samples.expand, contract=contract),
        read=partial(samples.read, contract=contract),
        file=samples.file_of,
        decode=partial(samples.decode, contract=contract),
    )


def input_kind_of_model(model: str) -> InputKind:
    """What a model takes, by its card or by what a converted file says; a graph of one's own
    takes pictures. Raises RkzooError for a name that is not known."""
    path = Path(model)
    suffix = path.suffix.lower()
    from rkzoo.workflow.request.importers.registry import is_model_file

    if is_model_file(model):
        return PICTURE
    if suffix == ".json":
        return input_kind_of_head(read_pipeline(path).head)
    if suffix == ".rknn":
        with suppress(RkzooError):  # what is wrong with it is said where it is opened
            from rkzoo.workflow.inference.board import contract_of

            return input_kind_of_head(contract_of(path).head)
        return PICTURE
    return input_kind_of_head(find_card(model).head)
