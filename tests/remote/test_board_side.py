"""What runs on a board when it is set up, by this machine's Python in a home of its own."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rkzoo.remote import board_side

Call = Callable[..., "subprocess.CompletedProcess[bytes]"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="boards run Linux")


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def run(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        source = Path(board_side.__file__).read_text()
        line = [sys.executable, "-I", "-c", source, *words]
        env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        return subprocess.run(line, input=data, capture_output=True, env=env, timeout=60)

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / ".local/share/rkzoo"


def packed(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def send(call: Call, name: str, files: dict[str, bytes]) -> None:
    data = packed(files)
    done = call("receive", name, hashlib.sha256(data).hexdigest(), data=data)
    assert (done.returncode, done.stderr) == (0, b"")


def present(call: Call) -> list[str]:
    return list(json.loads(call("facts").stdout)["present"])


def test_facts_tell_what_fits(call: Call) -> None:
    facts = json.loads(call("facts").stdout)
    assert facts["python"] == list(sys.version_info[:3])
    assert (facts["bits"], facts["present"], facts["current"]) == (64, [], [])
    assert facts["free"] > 0


def test_a_folder_appears_whole_or_not_at_all(call: Call, base: Path) -> None:
    data = packed({"a/b.py": b"x = 1\n"})
    digest = hashlib.sha256(data).hexdigest()
    for wrong in (data[:-1], b"", data + b"0"):
        done = call("receive", "one-1", digest, data=wrong)
        assert done.returncode == 1
        assert b"cut" in done.stderr
        assert b"Traceback" not in done.stderr
    assert list((base / "versions").iterdir()) == []
    for _ in range(2):  # another may have put it there
        assert call("receive", "one-1", digest, data=data).returncode == 0
    assert [path.name for path in (base / "versions").iterdir()] == ["one-1"]
    assert (base / "versions/one-1/a/b.py").read_bytes() == b"x = 1\n"


@pytest.mark.parametrize("name", ["../one", ".one", "", "a/b", "-x", "a" * 200])
def test_a_name_is_that_of_a_folder(call: Call, base: Path, name: str) -> None:
    data = packed({"a": b""})
    assert call("receive", name, hashlib.sha256(data).hexdigest(), data=data).returncode == 1
    assert call("switch", name).returncode == 1
    assert not base.exists()


def test_a_full_disk_or_a_file_in_the_way_is_one_line(call: Call, base: Path) -> None:
    base.parent.mkdir(parents=True)
    base.write_text("in the way")
    done = call("receive", "one", "0" * 64)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"Not a directory" in done.stderr


# What the probe imports, as modules of a line each.
STUBS = {f"{name}.py": b"" for name in ("numpy", "cv2", "msgspec", "yaml", "uvicorn", "httptools")}
OURS = {
    "rkzoo/__init__.py": b"",
    "rkzoo/serving/__init__.py": b"",
    "rkzoo/serving/run.py": b"NEEDS = ('the_server_needs',)",
    "rkzoo/cli/__init__.py": b"",
    "rkzoo/cli/entry.py": b"",
    "rkzoo/__main__.py": b"import sys, numpy; print('here', numpy.__file__, *sys.argv[1:])",
}


def test_an_installation_is_used_once_it_works(call: Call, base: Path) -> None:
    send(call, "packages-1", STUBS)
    send(call, "rkzoo-1", OURS)
    assert call("switch", "rkzoo-1", "packages-1").returncode == 0
    assert json.loads(call("facts").stdout)["current"] == ["rkzoo-1", "packages-1"]
    program = base / "bin/rkzoo"
    line = [program, "a b", "$c"]
    told = subprocess.run(line, capture_output=True, text=True, cwd="/", env={"PATH": ""})
    assert told.stdout == f"here {base}/versions/packages-1/numpy.py a b $c\n", told.stderr

    without = {name: text for name, text in STUBS.items() if name != "the_server_needs.py"}
    send(call, "packages-0", without)
    done = call("switch", "rkzoo-1", "packages-0")
    assert done.stderr.strip() == b"ModuleNotFoundError: No module named 'the_server_needs'"

    lacking = b"raise ImportError('libx.so.6: cannot open shared object file')"
    send(call, "packages-2", STUBS | {"cv2.py": lacking})
    done = call("switch", "rkzoo-1", "packages-2")
    assert done.returncode == 1
    assert done.stderr.strip() == b"ImportError: libx.so.6: cannot open shared object file"
    assert json.loads(call("facts").stdout)["current"] == ["rkzoo-1", "packages-1"]


def test_the_one_before_stays_for_what_still_runs(call: Call, base: Path) -> None:
    send(call, "packages-1", STUBS)
    for number in (1, 2, 3):
        send(call, f"rkzoo-{number}", OURS)
        assert call("switch", f"rkzoo-{number}", "packages-1").returncode == 0
    assert present(call) == ["packages-1", "rkzoo-2", "rkzoo-3"]


def test_remove_leaves_what_is_not_its_own(call: Call, base: Path) -> None:
    send(call, "rkzoo-1", OURS)
    (base / "notes.txt").write_text("mine")
    assert json.loads(call("remove").stdout) == ["rkzoo-1"]
    assert [path.name for path in base.iterdir()] == ["notes.txt"]
    assert json.loads(call("remove").stdout) == []


def test_a_hostile_archive_stays_in_its_folder(call: Call, base: Path, tmp_path: Path) -> None:
    """What is received is this PC's own; but a folder of packages is never to reach out of it."""
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no filter of archives")
    data = packed({"../../../evil": b"x"})
    done = call("receive", "one", hashlib.sha256(data).hexdigest(), data=data)
    assert done.returncode != 0
    assert not list(tmp_path.rglob("evil"))
    assert present(call) == []
