"""The binding and the stand-in under the address sanitizer: no byte outside what was given, none
after its end, nothing twice, and no growth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from npu_standin import build

DRIVE = Path(__file__).with_name("npu_drive.py")


def sanitizer() -> str:
    """The sanitizer's library, which must be loaded before Python."""
    asked = [build.compiler(), "-print-file-name=libasan.so"]
    found = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("this compiler has no address sanitizer (libasan)")
    return found


def drive(library: Path, log: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, STANDIN_LOG=str(log), **more)
    command = [sys.executable, str(DRIVE), str(library)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_under_the_address_sanitizer(tmp_path: Path) -> None:
    flags = ("-fsanitize=address", "-fno-omit-frame-pointer")
    # Python itself leaves memory at its end: the stand-in counts what it gave out.
    # What was given back is not held for long, so that growth is growth.
    options = "detect_leaks=0:exitcode=99:quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
    loaded = sanitizer()
    library = build.compiled(tmp_path, *flags)
    log = tmp_path / "last words"
    done = drive(library, log, LD_PRELOAD=loaded, ASAN_OPTIONS=options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "AddressSanitizer" not in done.stderr
    word, _, grown = done.stdout.split()
    assert word == "driven"
    assert int(grown) < 1 << 20  # in 10,000 frames
    assert "0 contexts left, 0 memories left, misuse 0" in log.read_text()


def test_the_sanitizer_would_see_it(tmp_path: Path) -> None:
    """The same with a stand-in that writes behind its outputs, so that silence means something."""
    loaded = sanitizer()
    source = (build.HERE / "standin.c").read_text()
    wrong = source.replace("calloc(1, sizeof *mem)", "calloc(1, sizeof *mem - 8)")
    assert wrong != source
    (tmp_path / "standin.c").write_text(wrong)
    library = tmp_path / "librknnrt.so"
    command = [build.compiler(), "-O0", "-g", "-shared", "-fPIC", "-pthread", "-fsanitize=address"]
    where = [f"-I{build.HERE}", str(tmp_path / "standin.c"), "-o", str(library)]
    subprocess.run([*command, *where], check=True)
    done = drive(library, tmp_path / "log", LD_PRELOAD=loaded, ASAN_OPTIONS="detect_leaks=0")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
