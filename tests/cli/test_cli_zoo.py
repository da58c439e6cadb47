"""rkzoo list, info and fetch as a user calls them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rkzoo.cli.main import main
from rkzoo.zoo import catalogue

WEIGHTS = b"weights" * 1000


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RKZOO_CARDS", raising=False)
    monkeypatch.delenv("RKZOO_OFFLINE", raising=False)
    return tmp_path


@pytest.fixture
def own_card(own_place: Path) -> Path:
    """A card whose weights lie beside it."""
    (own_place / "my net.onnx").write_bytes(WEIGHTS)
    path = own_place / "mine.yaml"
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    path.write_text(
        "name: mine\ntitle: 我的 net\ntask: detect\nbase: yolov8\n"
        "licence: {name: MIT, note: free}\n"
        f"sources: [{{url: 'file:my net.onnx', sha256: {digest}, size: {len(WEIGHTS)}}}]\n",
        encoding="utf-8",
    )
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 0
    return json.loads(out)


def test_list_shows_every_card_in_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "list")
    header, *rows = out.splitlines()
    assert (code, err) == (0, "")
    assert [row.split()[0] for row in rows] == list(catalogue.names())
    at = header.index("licence")
    assert all(row[at - 1] == " " and row[at] != " " for row in rows)


def test_list_filters_by_task_and_chip(capsys: pytest.CaptureFixture[str]) -> None:
    assert {one["task"] for one in document(capsys, "list", "--task", "detect")} == {"detect"}
    names = {one["name"] for one in document(capsys, "list", "--soc", "RV1106")}
    assert "yolov8n" in names
    assert not names & {"ppocr", "ppocr-v4-rec", "font-cjk"}  # the reader is fp16 only
    (one,) = [o for o in document(capsys, "list", "--soc", "rk2118") if o["name"] == "yolov8n"]
    assert one["dtypes"] == ["fp16"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("list", "--task", "detct"), ("detct", "Did you mean detect?")),
        (("list", "--soc", "rk9999"), ("rk9999",)),
        (("list", "--soc", "rk1808"), ("first generation",)),
        (("info", "yolo8n"), ("yolov8n", "rkzoo list")),
        (("fetch", "nowhere/x.yaml"), ("does not exist",)),
        (("fetch", "ppocr", "--offline"), ("offline", "Run this once online")),
    ],
)
def test_a_mistake_is_answered_in_sentences(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], words: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    for word in words:
        assert word in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", catalogue.names())
def test_info_says_what_the_card_says(capsys: pytest.CaptureFixture[str], name: str) -> None:
    card = catalogue.card(name)
    code, out, err = run(capsys, "info", name)
    assert (code, err) == (0, "")
    assert card.title in out
    assert card.licence.name in out
    parts = catalogue.members(card).values() if card.pipeline else ()
    for part in parts:
        assert (f"rkzoo info {part.name} says how" in out) == bool(part.export)
    all_exported = bool(parts) and all(part.export for part in parts)
    assert all_exported or (card.export or f"rkzoo fetch {name}") in out
    assert all_exported or ("published for PyTorch only" if card.export else "not fetched") in out
    for note in card.notes:
        assert " ".join(note.split()) in " ".join(out.split())
    found = document(capsys, "info", name)
    assert found["name"] == name
    assert set(found["fetched"].values()) == (set() if card.export or all_exported else {None})
    assert found["size"] is None or found["size"] > 0


def test_info_and_fetch_of_a_card_of_ones_own(
    capsys: pytest.CaptureFixture[str], own_card: Path
) -> None:
    code, out, _ = run(capsys, "info", str(own_card))
    assert code == 0
    assert "我的 net" in out
    assert f"rkzoo convert {own_card} --soc rk3588" in out
    weights = own_card.with_name("my net.onnx")
    assert str(weights) in out
    code, out, err = run(capsys, "fetch", str(own_card))
    assert (code, out) == (0, f"model\t{weights}\n")
    assert err == "Licence MIT. free\n"
    assert document(capsys, "fetch", str(own_card), "--offline") == {
        "name": "mine",
        "files": {"model": str(weights)},
    }


def test_a_wrong_card_is_named(capsys: pytest.CaptureFixture[str], own_card: Path) -> None:
    own_card.write_text(own_card.read_text("utf-8") + "lables: [a]\n", encoding="utf-8")
    code, _, err = run(capsys, "info", str(own_card))
    assert code == 2
    assert str(own_card) in err
    assert "`lables`" in err
    assert "Did you mean labels?" in err


def test_cards_of_ones_own_are_listed(
    capsys: pytest.CaptureFixture[str], own_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CARDS", str(own_card.parent))
    (one,) = [o for o in document(capsys, "list") if o["name"] == "mine"]
    assert one["fetched"] is True
    assert one["size"] == len(WEIGHTS)


def test_list_loads_nothing_heavy(own_place: Path) -> None:
    """What makes `list` answer at once; the time itself is measured by hand."""
    code = (
        "import sys; from rkzoo.cli.main import main; main(['list'])\n"
        "heavy = {'numpy', 'cv2', 'onnx', 'onnxruntime', 'rich', 'ssl', 'urllib.request'}\n"
        "sys.exit(f'loaded: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert "yolov8n" in done.stdout
