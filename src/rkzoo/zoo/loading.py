"""Card parser: yaml to Card, with errors that name file, key and remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained
from rkzoo.spelling import unknown
from rkzoo.zoo.labels import is_label_file
from rkzoo.zoo.schema import Card, Source

# A card is about a page of text; anything longer is another file given by mistake.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ERROR = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<key>.*)`", re.DOTALL)


# By the key that says what the card is of.
_LICENCES = {"file": "your own", "pipeline": "those of its parts"}
# What to write for a required key whose form is not plain.
_EXAMPLES = {
    "licence": " `licence: {name: Apache-2.0}`, with the licence of the weights; a model file of "
    "your own, named by `file` in place of `sources`, needs none",
}
PARTS = "A part of a pipeline is the name of a card: of rkzoo list, or of NAME.yaml beside it."
OWN_PART = "Write a card for a model file of your own, with: rkzoo card new FILE"


def read_card(path: Path, families: Path) -> Card:
    """Read and validate a card.

    Args:
        path: The yaml file. Its `base` is looked up in the folder `families` beside it first.
        families: Folder of the families that come with rkzoo.

    Returns:
        The card, merged with its family.

    Raises:
        RkzooError: The file is not a valid card.
    """
    data = read_mapping(path)
    base = data.get("base")
    if base is not None:
        data = merged(_family(base, path, families), data)
    for key, licence in _LICENCES.items():  # what a card of one's own need not say
        if key in data:
            usual = {"name": path.stem, "title": path.stem, "licence": {"name": licence}}
            data = usual | data
    return anchored(as_card(data, path), path.parent)


def anchored(card: Card, folder: Path) -> Card:
    """Make the relative paths of a card absolute, from `folder`."""

    def placed(path: str) -> str:
        return os.path.normpath(folder.absolute() / Path(path).expanduser()) if path else ""

    def fixed(source: Source) -> Source:
        if not source.url.startswith("file:"):
            return source
        path = placed(source.url.removeprefix("file:"))
        return msgspec.structs.replace(source, url=f"file:{path}")

    labels = card.labels
    hint = card.calibration
    return msgspec.structs.replace(
        card,
        labels=placed(labels) if isinstance(labels, str) and is_label_file(labels) else labels,
        calibration=msgspec.structs.replace(hint, folder=placed(hint.folder)),
        sources=tuple(map(fixed, card.sources)),
        files={role: tuple(map(fixed, mirrors)) for role, mirrors in card.files.items()},
    )


def _family(base: object, path: Path, families: Path) -> Mapping[str, Any]:
    folders = dict.fromkeys((path.parent / "families", families))
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    if not isinstance(base, str) or base not in known:
        raise unknown(
            f"The card {path} inherits from {str(base)[:80]!r}, which is not a family.",
            f"Known families: {', '.join(known)}.",
            str(base),
            known,
            "Name one of them, or leave `base` out.",
        )
    file = next(f for f in (folder / f"{base}.yaml" for folder in folders) if f.is_file())
    stat = file.stat()
    return _read_family(file, (stat.st_mtime_ns, stat.st_size))


@cache
def _read_family(file: Path, stamp: tuple[int, int]) -> Mapping[str, Any]:
    """Cached; `stamp` (time and size of the file) invalidates an edited family."""
    family = read_mapping(file)
    # A single level of inheritance, so no cycles.
    for key in ("base", "name"):
        if key in family:
            raise RkzooError(
                f"The family {file} has the key `{key}`.",
                "A family is named by its file, and inherits from no other.",
                f"Remove `{key}`.",
            )
    return family


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base`: mappings recursively, lists and values replaced.

    A mapping with another `kind` replaces the whole mapping below it.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            same_kind = value.get("kind", below.get("kind")) == below.get("kind")
            result[key] = merged(below, value) if same_kind else value
        else:
            result[key] = value
    return result


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a yaml mapping, rejecting repeated keys, aliases and Python tags.

    Raises:
        RkzooError: The file is missing, too long, or not such a mapping.
    """
    with os_errors_explained(f"The card {path} cannot be read."), open_file(path) as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise RkzooError(
            f"{path} is too long for a card.",
            f"A card has at most {MAX_BYTES // 1024} KiB.",
            "Check that it is the file you mean.",
        )
    return parse(raw, path)


def parse(raw: bytes, path: Path) -> dict[str, Any]:
    """As `read_mapping`, from bytes; `path` only names them in errors."""
    try:
        loader = _Loader(raw)
        try:
            _check_depth(raw)
            node = loader.get_single_node()
            if node is not None:
                _check_node(node, path, set())
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise RkzooError(
            f"The card {path} is not valid yaml.", _yaml_reason(error), "Correct that place."
        ) from error
    if not isinstance(data, dict):
        raise RkzooError(
            f"{path} is not a card.",
            "A card is a yaml mapping of keys to values.",
            "Look at `rkzoo info ppocr-v4-det --json` for an example.",
        )
    return data


def _check_depth(raw: bytes) -> None:
    # The C parser recurses: a deeply nested file would crash the process.
    depth = 0
    for event in yaml.parse(raw, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"It is nested deeper than {MAX_DEPTH} levels.")


def _yaml_reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"Line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    text = f"{where}{problem}".rstrip(".")
    return f"{text}."


def _check_node(node: Any, path: Path, seen: set[int]) -> None:
    if id(node) in seen:
        # Aliases can expand a page of text to gigabytes, and no card needs one.
        raise RkzooError(
            f"The card {path} uses a yaml alias in line {node.start_mark.line + 1}.",
            "Anchors and aliases are not allowed in a card.",
            "Write the value out, or put it into a family.",
        )
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            _check_key(key, keys, path)
            _check_node(value, path, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_node(item, path, seen)


def _check_key(key: Any, keys: set[str], path: Path) -> None:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
        raise RkzooError(
            f"The card {path} has a key in line {line} that is not a plain word.",
            "Keys are words.",
            "Write the key out.",
        )
    if key.value in keys:
        raise RkzooError(
            f"The card {path} has the key `{key.value}` twice, the second in line {line}.",
            "Only one of the two could count.",
            "Remove one.",
        )
    keys.add(key.value)


def as_card(data: Mapping[str, Any], path: Path) -> Card:
    """Validate a merged mapping.

    Raises:
        RkzooError: It is invalid; the message names file, key and expected value.
    """
    try:
        return msgspec.convert(data, Card)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), path) from error
    except (RecursionError, OverflowError, TypeError) as error:
        raise RkzooError(
            f"The card {path} is not valid.", f"{error}.", "Compare it with another card."
        ) from error


def _invalid(message: str, path: Path) -> RkzooError:
    match = _ERROR.match(message)
    what, at = (match["what"], match["path"] or "$") if match else (message, "$")
    place = at.removeprefix("$").removeprefix(".")
    strange = _UNKNOWN.search(what)
    if strange:
        key = strange["key"]
        valid = sorted(_keys_at(at))
        full = f"{place}.{key}".removeprefix(".")
        return unknown(
            f"The card {path} has the unknown key `{full}`.",
            f"Valid keys there: {', '.join(valid)}.",
            key,
            valid,
            "Use one of them.",
        )
    where = f"the key `{place}`" if place else "the card as a whole"
    missing = re.search(r"missing required field `(.*)`", what)
    if missing:
        full = f"{place}.{missing[1]}".removeprefix(".")
        allowed = ", ".join(sorted(_values_at(f"{at}.{missing[1]}")))
        return RkzooError(
            f"The card {path} lacks the key `{full}`.",
            f"It is required; known: {allowed}." if allowed else "It is required.",
            f"Add{_EXAMPLES.get(full, ' it')}.",
        )
    if place.startswith("pipeline"):
        return RkzooError(f"The card {path} is wrong in {where}.", PARTS, OWN_PART)
    return RkzooError(
        f"The card {path} is wrong in {where}.", _reason(what, at), "Correct that value."
    )


def _reason(what: str, at: str) -> str:
    if "matching regex" in what:
        return (
            "Expected lowercase letters, digits, dots, dashes and underscores, no other characters."
        )
    text = what.replace("`", "").rstrip(".")
    text = text if text[:1].isupper() else f"The rule is: {text}"
    allowed = sorted(_values_at(at)) if what.startswith("Invalid") else []
    return f"{text}; known: {', '.join(allowed)}." if allowed else f"{text}."


def _keys_at(at: str) -> set[str]:
    """Field names of the records that are valid at a msgspec path like `$.sources[0]`."""
    return {field.encode_name for record in _records_at(at) for field in record.fields}


def _values_at(at: str) -> set[str]:
    """Values that are valid at a path: those of a Literal, or the kinds of a record."""
    from msgspec import inspect

    words = {
        str(word)
        for kind in _types_at(at)
        if isinstance(kind, inspect.LiteralType)
        for word in kind.values
    }
    parent, _, key = at.rpartition(".")
    tags = {str(r.tag) for r in _records_at(parent) if r.tag is not None and r.tag_field == key}
    return words | tags


def _records_at(at: str) -> list[Any]:
    from msgspec import inspect

    return [kind for kind in _types_at(at) if isinstance(kind, inspect.StructType)]


def _types_at(at: str) -> list[Any]:
    from msgspec import inspect

    types: list[Any] = [inspect.type_info(Card)]
    for name, kind in re.findall(r"\.([^.\[]+)|(\[[^\]]*\])", at):
        types = [below for entry in types for below in _below(entry, name, bool(kind))]
    return [plain for kind in types for plain in _plain(kind)]


def _plain(value: Any) -> Iterator[Any]:
    from msgspec import inspect

    if isinstance(value, inspect.UnionType):
        yield from value.types
    elif isinstance(value, inspect.Metadata):
        yield from _plain(value.type)
    else:
        yield value


def _below(value: Any, name: str, item: bool) -> Iterator[Any]:
    from msgspec import inspect

    for kind in _plain(value):
        if isinstance(kind, inspect.StructType) and not item:
            yield from (field.type for field in kind.fields if field.encode_name == name)
        elif isinstance(kind, inspect.DictType):
            yield kind.value_type
        elif isinstance(kind, inspect.VarTupleType | inspect.ListType):
            yield kind.item_type
