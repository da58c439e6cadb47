"""What the cache holds is counted, bounded and removed; nothing else ever is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rkzoo import cache, files
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.files import CACHE_TAG, cache_dir, locked, require_space
from rkzoo.kept import keep, kept

KEY = "0123456789abcdef" * 4
NAMES = {
    "weights": f"{KEY}/model.onnx",
    "wheels": "models-1.0-py3-none-any.whl",
    "recorded": KEY,
    "toolkits": "2.5.0-full/bin/python",
    "builds": f"{KEY}/recipe.json",
    "made": f"{KEY[:32]}/model.onnx",
    "evals": f"{KEY[:32]}/000000-8.npz",
    "embeddings": f"{KEY[:32]}/{KEY}.npy",
    "estimates": f"{KEY}.json",
    "layers": f"{KEY[:32]}/{KEY}.json",
    "lines": f"{KEY[:16]}/00000.png",
    "received": KEY,
    "logs": "20260101-000000.000000001-build-ab12.log",
    "partial": f"member-{KEY}.part",
    "scratch": f"{KEY[:12]}/graph.onnx",
    "stamps": KEY,
}
HOUR = 3600.0


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RKZOO_CACHE_LIMIT", raising=False)
    return cache_dir()


def put(kind: str, size: int = 1000, used: float = 0.0, number: int = 0) -> Path:
    """An entry's file that was used so many seconds ago."""
    name = NAMES[kind].replace(KEY[:12], f"{number:012x}")
    path = cache_dir(kind) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    at = time.time() - used
    for place in (path, *path.parents):
        if place == cache_dir(kind):
            break
        os.utime(place, (at, at))
    return path


@contextmanager
def another_process(root: Path, *command: str) -> Iterator[None]:
    """Another process that has used the cache, and lives; its command line ends in `command`."""
    code = (
        "import sys; from rkzoo.files import cache_dir; cache_dir(); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RKZOO_CACHE": str(root)},
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()


def test_each_kind_that_is_written_anywhere_is_in_the_table() -> None:
    """Read from the source, so that a new kind cannot be forgotten."""
    import re

    source = Path(files.__file__).parent
    named = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r'(?:cache_dir|kept_folder)\(\s*"(\w+)"', path.read_text("utf-8"))
    }
    assert named - {"locks"} == set(cache.NAMES)


def test_everything_is_counted(root: Path) -> None:
    for kind in NAMES:
        put(kind)
    found = cache.entries()
    assert [entry.kind.name for entry in found] == list(NAMES)
    assert {entry.size for entry in found} == {1000}
    assert not [
        entry for entry in found if "/" in str(entry.path.relative_to(root / entry.kind.name))
    ]


def test_everything_is_cleared_but_what_rkzoo_never_wrote(root: Path, tmp_path: Path) -> None:
    for kind in NAMES:
        put(kind)
        (root / kind / "mine.txt").write_text("mine")
        (root / kind / "photos").mkdir()
        (root / kind / "photos" / "a.jpg").write_text("mine")
    removal = cache.clear()
    assert len(removal.removed) == len(NAMES)
    assert removal.size == 1000 * len(NAMES)
    left = {path.name for path in root.rglob("*") if path.is_file()}
    assert left == {"mine.txt", "a.jpg", CACHE_TAG, ".in-use"}


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / KEY).mkdir(parents=True)
    (mine / KEY / "photo.jpg").write_text("mine")
    (root / "builds").symlink_to(mine)
    cache_dir("weights")
    (root / "weights" / KEY).symlink_to(mine / KEY)
    evaluation = put("evals").parent
    (evaluation / "link").symlink_to(mine)
    cache.clear()
    assert not evaluation.exists()
    assert (mine / KEY / "photo.jpg").read_text() == "mine"
    assert (root / "weights" / KEY).is_symlink()


@pytest.mark.parametrize("action", [["clear", "--yes"], ["prune", "--keep", "0"]])
def test_a_folder_that_is_not_the_cache_alone_is_refused(
    action: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    (home / "Documents").mkdir(parents=True)
    monkeypatch.setenv("RKZOO_CACHE", str(home))
    build = put("builds", used=9 * HOUR)
    assert main(["cache", *action]) == 2
    assert "Documents" in capsys.readouterr().err
    assert build.is_file()
    assert not (home / CACHE_TAG).exists()


def test_a_home_is_never_marked_nor_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "home"))
    put("builds")
    assert not (tmp_path / "home" / CACHE_TAG).exists()
    with pytest.raises(RkzooError, match="nothing in it is removed"):
        cache.clear()


def test_the_usual_place_is_rkzoos_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RKZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    old = files.cache_root() / "kind-of-an-old-version"
    old.mkdir(parents=True)
    build = put("builds")
    assert len(cache.clear().removed) == 1
    assert (build.exists(), old.exists()) == (False, True)


def test_the_least_recently_used_goes_first_and_weights_stay() -> None:
    for kind in ("weights", "wheels", "toolkits", "recorded"):
        put(kind, used=900 * HOUR)
    old, middle, new = (
        put(kind, used=hours * HOUR, size=1000)
        for kind, hours in (("evals", 9), ("builds", 5), ("made", 2))
    )
    removal = cache.prune(keep=1500)
    assert [entry.path for entry in removal.removed] == [old.parent, middle.parent]
    assert new.is_file()
    assert [entry.kind.name for entry in cache.entries()] == [
        "weights", "wheels", "recorded", "toolkits", "made",
    ]  # fmt: skip


def test_age_alone_removes() -> None:
    old, new = put("evals", used=31 * 24 * HOUR, number=1), put("evals", used=HOUR, number=2)
    assert main(["cache", "prune", "--older", "30d"]) == 0
    assert (old.exists(), new.exists()) == (False, True)


def test_reading_is_use(root: Path) -> None:
    path = cache_dir("estimates") / f"{KEY}.json"
    keep(path, b"{}")
    os.utime(path, (1e9, 1e9))
    assert kept(path) == b"{}"
    (entry,) = cache.entries()
    assert time.time() - entry.used < 60


def test_what_a_running_process_may_use_stays(root: Path) -> None:
    recent, old = put("evals", used=60, number=1), put("evals", used=2 * HOUR, number=2)
    with another_process(root):
        removal = cache.clear()
    assert [entry.path for entry in removal.in_use] == [recent.parent]
    assert (recent.exists(), old.exists()) == (True, False)
    assert not cache.clear().in_use
    assert not recent.exists()


def test_what_a_command_names_stays(root: Path) -> None:
    python = put("toolkits", used=9 * HOUR)
    with another_process(root, str(python)):
        assert cache.clear().in_use
    assert python.is_file()


def test_what_is_locked_stays(root: Path) -> None:
    entry = put("made", used=9 * HOUR).parent
    code = (
        "import sys; from pathlib import Path; from rkzoo.files import locked\n"
        "with locked(Path(sys.argv[1])): print(1, flush=True); input()"
    )
    lock = cache_dir("locks") / f"made-{entry.name}"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        assert cache.clear().in_use
        process.stdin.close()
    assert entry.is_dir()
    with locked(lock):
        pass
    assert not cache.clear().in_use


def test_what_a_killed_process_left_is_an_entry(root: Path) -> None:
    for name in (f"builds/.{KEY}.0a1b2c3d.part", f"made/.{KEY[:32]}.0a1b2c3d.old"):
        (root / name).mkdir(parents=True)
    (root / "estimates").mkdir()
    (root / "estimates" / f".{KEY}.0a1b2c3d.part.json").write_text("")
    assert len(cache.clear().removed) == 3
    assert not [path for path in root.rglob(".*.*") if path.name != ".in-use"]


def test_a_verb_that_wrote_holds_the_cache_below_its_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_CACHE_LIMIT", "1500")
    since = time.time()
    old = put("evals", used=9 * HOUR, number=1)
    os.utime(root / "evals", (1e9, 1e9))
    put("weights", used=9 * HOUR)
    assert cache.prune_written(since) is None  # nothing that can be made again was written
    new = put("evals", used=0, number=2)
    removal = cache.prune_written(since)
    assert removal is not None
    assert removal.size == 1000
    assert (old.exists(), new.exists()) == (False, True)


def test_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < cache.limit() <= cache.LIMIT
    monkeypatch.setenv("RKZOO_CACHE_LIMIT", "2.5 GB")
    assert cache.limit() == 2_500_000_000
    monkeypatch.setenv("RKZOO_CACHE_LIMIT", "much")
    with pytest.raises(RkzooError, match="RKZOO_CACHE_LIMIT=4GB"):
        cache.limit()


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("500 mb", 5 * 10**8), ("1.5G", 15 * 10**8), ("0", 0), ("1k", 1000)],
)
def test_sizes(text: str, size: int) -> None:
    assert cache.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-4GB", "4 pounds", "1e9", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(RkzooError, match="--keep 4GB"):
        cache.parse_size(text)


@pytest.mark.parametrize(("text", "hours"), [("30d", 720), ("12h", 12), ("2w", 336), ("90m", 1.5)])
def test_ages(text: str, hours: float) -> None:
    assert cache.parse_age(text) == hours * HOUR


def test_show(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    assert f"Nothing is kept in {root}" in capsys.readouterr().out
    put("weights", size=2_000_000, used=3 * 24 * HOUR)
    put("evals", number=1)
    put("evals", number=2)
    assert main(["cache", "show"]) == 0
    out = capsys.readouterr().out
    assert "models' weights" in out
    assert "2.0 MB" in out
    assert "3 days ago" in out
    assert str(root) in out
    for command in (["cache", "--json"], ["cache", "show", "--json"]):
        assert main(command) == 0
        document = json.loads(capsys.readouterr().out)
        kinds = {one["kind"]: one for one in document["kinds"]}
        assert (kinds["evals"]["count"], kinds["evals"]["bytes"]) == (2, 2000)
        assert (document["bytes"], document["made_again_bytes"]) == (2_002_000, 2000)


def test_clear_asks_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    path = put("evals")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["cache", "clear"]) == 2
    assert "Add --yes" in capsys.readouterr().err
    for answer, code in (("n\n", 1), ("", 1), ("y\n", 0)):
        assert path.is_file()
        asked = io.StringIO(answer)
        asked.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", asked)
        assert main(["cache", "clear", "evals"]) == code
        assert "Remove 1 of evals, 1.0 kB? [y/N]" in capsys.readouterr().err
    assert not path.exists()


def test_clear_of_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation, build = put("evals"), put("builds")
    assert main(["cache", "clear", "evals", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 1000
    assert (evaluation.exists(), build.exists()) == (False, True)
    assert main(["cache", "clear", "bulids", "--yes"]) == 2
    assert "Did you mean builds?" in capsys.readouterr().err


def test_space_is_told_before_it_is_used(tmp_path: Path) -> None:
    said = require_space(tmp_path / "not" / "there", 5_000_000, "The samples of 10 pictures")
    assert said.startswith("The samples of 10 pictures: 5.0 MB will be written to ")
    with pytest.raises(RkzooError) as caught:
        require_space(tmp_path, 10**18, "The samples of 10 pictures")
    assert "free" in caught.value.why
    assert "rkzoo cache" in caught.value.fix
    assert not (tmp_path / "not").exists()
