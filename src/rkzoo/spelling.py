"""Did you mean: the error for a word that is none of the valid ones, and names the nearest."""

from __future__ import annotations

from collections.abc import Iterable

from rkzoo.errors import RkzooError

_LIKE = 0.65  # of 1: below it a name is another word


def nearest(word: str, names: Iterable[str], count: int = 1) -> list[str]:
    """The names most like a word, the best first; capitals, dashes and underscores do not count."""
    import difflib

    plain = {_plain(name): name for name in names}
    return [plain[match] for match in difflib.get_close_matches(_plain(word), plain, count, _LIKE)]


def unknown(what: str, why: str, word: str, names: Iterable[str], otherwise: str) -> RkzooError:
    """The error for `word`, which is none of `names`.

    Args:
        what, why: the first sentences of the error.
        word: what was given.
        names: what is valid.
        otherwise: the remedy where no name is like the word.
    """
    near = nearest(word, names)
    if not near:
        return RkzooError(what, why, otherwise)
    return RkzooError(what, why, f"Did you mean {near[0]}?", typo=(word, near[0]))


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
