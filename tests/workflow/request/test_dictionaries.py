"""Files of labels: names of classes, and dictionaries of characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from rkzoo.workflow.request.options import read_labels


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\n dog \n\n", ("cat", "dog")),
        ("\u3000\na\n \nb\n", ("\u3000", "a", " ", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        ("a\n\u2028\nb", ("a", "\u2028", "b")),
        ("\ufeffcat\ndog\n", ("cat", "dog")),
        ("\na\nb\n", ("", "a", "b")),
    ],
)
def test_a_dictionary_keeps_its_blanks(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(text.encode())
    assert read_labels(file) == names
