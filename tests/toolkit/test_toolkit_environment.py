"""Environments: pip's settings, interpreters, locks, damage. Nothing is downloaded here
but in the tests marked so."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.toolkit import environment, indexes, interpreter
from rkzoo.toolkit.versions import LAYOUT, RELEASES, release


def pretend(version: str, *, kind: str = "lean", **changes: object) -> Path:
    """A folder that looks installed."""
    folder = cache_dir("toolkits") / (version if kind == "lean" else f"{version}-{kind}")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    mark = {"version": version, "python": "3.11.7", "size": 7, "layout": LAYOUT}
    (folder / environment.READY).write_text(json.dumps(mark | changes))
    return folder


class TestIndexes:
    def write(self, tmp_path: Path, text: str) -> tuple[Path, ...]:
        path = tmp_path / "pip.conf"
        path.write_text(text)
        return (path,)

    def test_pip_conf_is_passed_on(self, tmp_path):
        files = self.write(
            tmp_path,
            "[global]\nindex-url = https://mirror/simple\ncert = /ca.pem\n"
            "extra-index-url =\n  https://a/simple\n  https://b/simple\n"
            "[install]\nfind-links = /wheels\n[list]\nproxy = never\n",
        )
        assert indexes.uv_environment({"HOME": str(tmp_path)}, files) == {
            "UV_DEFAULT_INDEX": "https://mirror/simple",
            "UV_INDEX": "https://a/simple https://b/simple",
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_FIND_LINKS": "/wheels",
            "SSL_CERT_FILE": "/ca.pem",
        }

    def test_a_variable_beats_the_file(self, tmp_path):
        files = self.write(tmp_path, "[global]\nindex_url = https://file/simple\n")
        environ = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://variable/simple"}
        assert indexes.uv_environment(environ, files) == {
            "UV_DEFAULT_INDEX": "https://variable/simple"
        }

    @pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX"])
    def test_uvs_own_index_is_not_overruled(self, tmp_path, name):
        environ = {"HOME": str(tmp_path), name: "https://uv", "PIP_INDEX_URL": "https://pip"}
        assert indexes.uv_environment(environ, ()) == {}

    def test_uvs_own_configuration_is_not_overruled(self, tmp_path):
        config = tmp_path / ".config/uv"
        config.mkdir(parents=True)
        (config / "uv.toml").write_text('[[index]]\nurl = "https://uv"\ndefault = true\n')
        environ = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://pip"}
        assert indexes.uv_environment(environ, ()) == {}

    def test_a_broken_pip_conf_is_no_obstacle(self, tmp_path):
        assert (
            indexes.uv_environment({"HOME": str(tmp_path)}, self.write(tmp_path, "nonsense")) == {}
        )


class TestInterpreter:
    def test_the_running_one_is_examined(self):
        found = interpreter.examine(sys.executable)
        assert found is not None
        assert found.version == sys.version_info[:3]

    @pytest.mark.parametrize("path", ["", "/nonexistent/python", "/bin/true", "/bin/false"])
    def test_what_is_no_python_is_none(self, path):
        assert interpreter.examine(path) is None

    def test_the_running_one_is_preferred_when_it_fits(self):
        if not (3, 8) <= sys.version_info[:2] <= (3, 12):
            pytest.skip("the tests run on a Python that the toolkit has no wheels for")
        assert interpreter.find(release("2.5.0")).path == sys.executable

    def test_without_any_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr(interpreter, "_candidates", lambda _: iter([sys.executable]))
        found = interpreter.Interpreter(sys.executable, (3, 13, 0))
        monkeypatch.setattr(interpreter, "examine", lambda _: found)
        with pytest.raises(RkzooError, match=r"3\.8 to 3\.12") as caught:
            interpreter.find(release("2.5.0"))
        assert "uv python install" in caught.value.fix

    @pytest.mark.parametrize(
        ("system", "machine", "word"),
        [
            ("Darwin", "arm64", "Darwin"),
            ("Windows", "AMD64", "Windows"),
            ("Linux", "armv7l", "arm"),
        ],
    )
    def test_other_machines_are_refused(self, monkeypatch, cache, system, machine, word):
        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr("platform.machine", lambda: machine)
        found = environment.unavailable()
        assert found is not None
        assert word in found.why
        with pytest.raises(RkzooError, match="does not run on this machine"):
            environment.ensure()

    def test_a_disk_without_room_is_told_before(self, monkeypatch, cache):
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000_000))
        monkeypatch.setattr(environment, "_install", None)
        with pytest.raises(RkzooError, match=r"RKNN-Toolkit2 2\.5\.0 cannot be stored") as caught:
            environment.ensure("2.5.0")
        assert "700.0 MB will be written" in caught.value.why

    def test_a_release_without_arm_wheels_is_refused_on_arm(self, monkeypatch, cache):
        monkeypatch.setattr("platform.system", lambda: "Linux")
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        found = environment.unavailable("2.2.0")
        assert found is not None
        assert "x86_64" in found.why


class TestEnvironment:
    def test_unknown_versions_are_answered_with_the_known(self, cache):
        with pytest.raises(RkzooError) as caught:
            environment.ensure("2.5.1")
        for known in RELEASES:
            assert known.version in caught.value.why
        assert "2.5.0" in caught.value.fix

    def test_installed_ones_are_used_and_listed(self, cache):
        pretend("2.3.2")
        pretend("2.5.0", kind="full")
        assert [env.name for env in environment.installed()] == ["2.5.0-full", "2.3.2"]
        assert environment.ensure("v2.3.2").name == "2.3.2"
        assert environment.ensure("2.5.0").name == "2.5.0-full", "full serves where lean would"
        assert environment.unavailable("2.5.0") is None

    def test_one_with_tensorflow_is_found_by_its_kind_and_serves_where_lean_would(self, cache):
        assert environment.newest_installed("tensorflow") is None
        folder = pretend("2.5.0", kind="tensorflow")
        env = environment.newest_installed("tensorflow")
        assert env is not None
        assert (env.folder, env.kind) == (folder, "tensorflow")
        assert environment.ensure("2.5.0").name == "2.5.0-tensorflow"
        assert environment.ensure("2.5.0", kind="tensorflow") == env
        pretend("2.5.0")
        assert environment.ensure("2.5.0").name == "2.5.0"
        assert [one.name for one in environment.remove("2.5.0-tensorflow")] == [env.name]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / environment.READY).unlink(),
            lambda folder: (folder / environment.READY).write_text("{"),
            lambda folder: (folder / environment.READY).write_text("[]"),
            lambda folder: (folder / "bin/python").unlink(),
        ],
    )
    def test_partial_ones_do_not_count(self, cache, damage):
        damage(pretend("2.5.0"))
        assert environment.installed() == ()

    def test_an_older_layout_does_not_count(self, cache):
        pretend("2.5.0", layout=0)
        assert environment.installed() == ()

    def test_remove_takes_lean_and_full_and_only_full_when_asked(self, cache):
        pretend("2.5.0")
        full = pretend("2.5.0", kind="full")
        assert [env.name for env in environment.remove("2.5.0-full")] == ["2.5.0-full"]
        assert not full.exists()
        assert [env.name for env in environment.remove("2.5.0")] == ["2.5.0"]
        with pytest.raises(RkzooError, match="not installed"):
            environment.remove("2.5.0")

    def test_a_failing_installation_leaves_nothing(self, cache, monkeypatch):
        monkeypatch.setattr(interpreter, "uv", lambda: "/bin/false")
        damaged = cache_dir("toolkits") / ".2.5.0.abcd.part"
        damaged.mkdir()
        with pytest.raises(RkzooError, match="cannot be installed") as caught:
            environment.ensure()
        assert caught.value.log is not None
        assert caught.value.log.exists()
        assert [path.name for path in cache_dir("toolkits").iterdir()] == [".2.5.0.lock"]

    def test_ctrl_c_leaves_nothing(self, cache, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(environment, "_prove", interrupted)
        monkeypatch.setattr(environment, "_uv", lambda arguments, *_: make_venv(arguments))
        with pytest.raises(KeyboardInterrupt):
            environment.ensure()
        assert environment.installed() == ()
        assert [path.name for path in cache_dir("toolkits").iterdir()] == [".2.5.0.lock"]

    def test_uvs_download_lines_are_counted(self):
        fetches = environment.DownloadProgress()
        lines = [
            "Resolved 14 packages in 2.06s",
            "Downloading numpy (17.5MiB)",
            "Downloading onnx (512.0KiB)",
            " Downloaded onnx",
            " Downloaded numpy",
            " Downloaded other",
        ]
        assert [fetches.read(line) for line in lines] == [False, True, True, True, True, False]
        assert fetches.done == fetches.total == 18 * 2**20

    @pytest.mark.parametrize(
        ("says", "words"),
        [
            ("error: failed to write: No space left on device (os error 28)", "disk is full"),
            ("error: Request failed\n cause: dns error\n", "cannot be reached"),
            ("  x No solution found when resolving dependencies:", "does not offer"),
            ("error: something new", "uv says: error: something new"),
        ],
    )
    def test_what_uv_says_becomes_a_sentence(self, cache, says, words):
        assert words in environment._explain(release("2.5.0"), says).why


def make_venv(arguments):
    if arguments[0] == "venv":
        site = Path(arguments[-1]) / "lib/python3.11/site-packages"
        site.mkdir(parents=True)


def test_the_stand_in_for_torch_explains_itself(cache, tmp_path):
    import subprocess

    environment._copy_stand_in(tmp_path)
    code = (
        "import torch, torch.nn as nn\n"
        "class Net(torch.nn.Module): pass\n"
        "@torch.no_grad()\n"
        "def f(): return 5\n"
        "with torch.no_grad(): assert f() == 5\n"
        "for line in ('torch.load', 'torch.nn.Conv2d', '__import__(\"torch.jit\")'):\n"
        "    try: eval(line)\n"
        "    except (AttributeError, ImportError) as error: print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert [line.split(" needs real PyTorch")[0] for line in lines] == [
        "torch.load",
        "torch.nn.Conv2d",
        "torch.jit",
    ]
    assert all("toolkit install --full" in line for line in lines)


@pytest.mark.network
@pytest.mark.toolkit
def test_a_version_is_installed_fast_and_small_and_by_one_process_only(cache):
    import multiprocessing
    import time

    if (why := environment.unavailable("2.3.2")) is not None:
        pytest.skip(str(why))
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(environment.ensure, ["2.3.2", "2.3.2"])
    assert time.monotonic() - start < 60
    assert first == second
    assert first.size < 700e6
    disk = sum(path.lstat().st_blocks * 512 for path in first.folder.rglob("*"))
    assert disk < 700e6
    assert not list(first.folder.parent.glob(".*.part"))
    assert [env.name for env in environment.installed()] == ["2.3.2"]


def test_without_network_the_index_is_named_as_the_reason(cache, monkeypatch, tmp_path):
    """Real uv, an index that nobody serves, and an empty cache of its own."""
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(RkzooError, match="index cannot be reached") as caught:
        environment.ensure()
    assert "PIP_INDEX_URL" in caught.value.fix
    assert environment.installed() == ()
