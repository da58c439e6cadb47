"""Toolkit environments: one isolated venv per toolkit version, made with uv and kept in the cache.

An environment is `toolkits/<version>/` (lean) or `toolkits/<version>-<kind>/`. It is built under a
temporary name and moved when it works, and it counts as installed only with its `ready.json`; so an
interrupted installation leaves nothing that counts. Only its `bin/python` is used, which can be
moved.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import (
    cache_dir,
    disposable,
    locked,
    os_errors_explained,
    require_space,
    size_text,
)
from rkzoo.progress import SILENT, ProgressReporter, ProgressTask
from rkzoo.toolkit import indexes, intact, interpreter, logs
from rkzoo.toolkit.recipe import DEFAULT_VERSION, Recipe
from rkzoo.toolkit.versions import (
    EXCLUDED,
    KINDS,
    LAYOUT,
    RELEASES,
    REQUIREMENTS,
    Kind,
    Release,
    release,
)

READY = "ready.json"


@dataclass(frozen=True)
class ToolkitEnv:
    """An installed toolkit. `python` is its interpreter, `kind` one of KINDS, `size` in bytes."""

    version: str
    python: Path
    python_version: str
    kind: str
    size: int

    @property
    def folder(self) -> Path:
        """The folder of the environment."""
        return self.python.parent.parent

    @property
    def name(self) -> str:
        """Name of the folder, such as "2.5.0" or "2.5.0-full"."""
        return self.folder.name


def ensure(
    version: str = DEFAULT_VERSION, *, kind: str = "lean", report: ProgressReporter = SILENT
) -> ToolkitEnv:
    """The environment of a toolkit version, installed when it is missing.

    Args:
        version: The toolkit version.
        kind: What it must contain beside the toolkit (KINDS: PyTorch, or TensorFlow); a larger one
            also serves as lean.
        report: Receives progress and notes.

    Raises:
        RkzooError: Unknown version, unsupported platform or Python, no network, or a full disk.
    """
    known = release(version)
    root = cache_dir("toolkits")
    for folder in _folders(root, known.version, kind):
        if (env := _read(folder)) is not None and _is_whole(env, report):
            return env
    if (unfit := _unfit(known)) is not None:
        raise unfit
    target = _folders(root, known.version, kind)[0]
    with locked(root / f".{target.name}.lock"):
        if (env := _read(target)) is not None and _is_whole(env):
            return env  # another process made it in the meantime
        _sweep(root, target.name)
        more = KINDS[kind]
        known = replace(
            known, pythons=tuple(python for python in known.pythons if python >= more.python)
        )
        python = interpreter.find(known)
        require_space(root, more.needs, f"RKNN-Toolkit2 {known.version}{more.title}")
        report.note(
            f"RKNN-Toolkit2 {known.version}{more.title} is being installed into rkzoo's cache"
            f" ({more.size}, where {size_text(shutil.disk_usage(root).free)} are free; Python"
            f" {python.text}): {target}"
        )
        return _install(known, python, target, more, report)


def ensure_for(recipe: Recipe, *, report: ProgressReporter = SILENT) -> ToolkitEnv:
    """The environment that a build needs: with PyTorch for gdq, which finds 4-bit weights by
    gradients. Raises RkzooError as `ensure`."""
    kind = "full" if recipe.algorithm == "gdq" else "lean"
    return ensure(recipe.toolkit, kind=kind, report=report)


_whole: set[Path] = set()
"""Environments that this process has found as they were installed."""


def _is_whole(env: ToolkitEnv, report: ProgressReporter = SILENT) -> bool:
    if env.folder not in _whole:
        damaged = intact.first_damage(env.folder)
        if damaged is not None:
            report.note(
                f"{env.folder / damaged} in rkzoo's cache is damaged; the toolkit is installed"
                " again."
            )
            return False
        _whole.add(env.folder)
    return True


def newest_installed(kind: str) -> ToolkitEnv | None:
    """The newest installed environment of that kind; None when there is none."""
    return next((env for env in installed() if env.kind == kind), None)


def installed() -> tuple[ToolkitEnv, ...]:
    """All installed environments, the newest version first, lean before full."""
    root = cache_dir("toolkits")
    toolkit_envs = [
        env
        for known in RELEASES
        for folder in _folders(root, known.version, "lean")
        if (env := _read(folder)) is not None
    ]
    return tuple(toolkit_envs)


def remove(version: str) -> tuple[ToolkitEnv, ...]:
    """Remove the environments of a version.

    Args:
        version: The toolkit version; "2.5.0-full" means only that kind.

    Returns:
        The removed environments.

    Raises:
        RkzooError: None of them is installed.
    """
    plain, _, kind = version.strip().lower().partition("-")
    name = release(plain if kind in KINDS else version).version
    root = cache_dir("toolkits")
    removed = []
    for folder in _folders(root, name, kind or "lean"):
        with locked(root / f".{folder.name}.lock"):
            _sweep(root, folder.name)
            env = _read(folder)
            if folder.exists():
                with os_errors_explained(f"RKNN-Toolkit2 {name} cannot be removed."):
                    _discard(folder)
            if env is not None:
                removed.append(env)
    if not removed:
        have = ", ".join(env.name for env in installed()) or "none"
        raise RkzooError(
            f"RKNN-Toolkit2 {version} is not installed, so there is nothing to remove.",
            f"Installed: {have}.",
            "rkzoo toolkit list shows them.",
        )
    return tuple(removed)


def unavailable(version: str = DEFAULT_VERSION) -> RkzooError | None:
    """Why a version cannot run on this machine (platform, Python); None when it can.

    No network access.
    """
    known = release(version)
    root = cache_dir("toolkits")
    if any(_read(folder) for folder in _folders(root, known.version, "lean")):
        return None
    if (unfit := _unfit(known)) is not None:
        return unfit
    try:
        interpreter.find(known)
        interpreter.uv()
    except RkzooError as error:
        return error
    return None


def _unfit(known: Release) -> RkzooError | None:
    if (error := interpreter.unfit_platform()) is not None:
        return error
    if platform.machine() not in known.machines:
        return RkzooError(
            f"RKNN-Toolkit2 {known.version} does not run on this machine.",
            f"Rockchip published that version for {' and '.join(known.machines)} only.",
            f"Use {DEFAULT_VERSION}.",
        )
    return None


def _folders(root: Path, version: str, kind: str) -> tuple[Path, ...]:
    """Where the environment may be, the preferred place first."""
    if kind != "lean":
        return (root / f"{version}-{kind}",)
    return (root / version, *(root / f"{version}-{more}" for more in KINDS if more != "lean"))


def _read(folder: Path) -> ToolkitEnv | None:
    python = folder / "bin" / "python"
    try:
        mark = json.loads((folder / READY).read_text("utf-8"))
        if mark["layout"] != LAYOUT or not os.access(python, os.X_OK):
            return None
        kind = folder.name.partition("-")[2] or "lean"
        return ToolkitEnv(mark["version"], python, mark["python"], kind, mark["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _discard(folder: Path) -> None:
    """Rename at once, then delete, so that a half-deleted one never counts as installed."""
    doomed = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def _sweep(root: Path, name: str) -> None:
    """Delete remains of interrupted installations of `name`. The caller holds its lock."""
    for pattern in (f".{name}.*.part", f".{name}.*.old"):
        for rest in root.glob(pattern):
            shutil.rmtree(rest, ignore_errors=True)


def _install(
    known: Release,
    python: interpreter.Interpreter,
    target: Path,
    kind: Kind,
    report: ProgressReporter,
) -> ToolkitEnv:
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    title = f"Installing RKNN-Toolkit2 {known.version}{kind.title}"
    refused = f"RKNN-Toolkit2 {known.version} cannot be installed."
    with disposable(part), os_errors_explained(refused):
        with report.task(title, bytes=True) as task:
            _populate(known, python, part, kind, task)
        size = _size(part)
        mark = {
            "version": known.version,
            "python": python.text,
            "size": size,
            "layout": LAYOUT,
        }
        (part / READY).write_text(json.dumps(mark), encoding="utf-8")
        intact.record(part)
        if target.exists():
            _discard(target)
        os.replace(part, target)
    return ToolkitEnv(known.version, target / "bin" / "python", python.text, kind.name, size)


def _populate(
    known: Release, python: interpreter.Interpreter, part: Path, kind: Kind, task: ProgressTask
) -> None:
    _uv(["venv", "--no-project", "--relocatable", "--python", python.path, str(part)], known, task)
    own = part / "bin" / "python"
    requested = (f"rknn-toolkit2=={known.version}", *REQUIREMENTS, *kind.packages)
    overrides = part / "overrides.txt"
    overrides.write_text("\n".join((*REQUIREMENTS, *EXCLUDED, *kind.overrides)), encoding="utf-8")
    install = ["pip", "install", "--python", str(own), "--override", str(overrides), *requested]
    if kind.torch:
        _with_torch(install, known, task)
    else:
        _uv(install, known, task)
        for site in part.glob("lib/python*/site-packages"):
            _copy_stand_in(site)
    _prove(own, known, part)


def _with_torch(install: Sequence[str], known: Release, task: ProgressTask) -> None:
    """Install PyTorch without CUDA when its index is reachable, else what the user's index has."""
    try:
        _uv([*install, "--torch-backend", "cpu"], known, task)
    except RkzooError:
        _uv(install, known, task)


def _copy_stand_in(site: Path) -> None:
    source = resources.files("rkzoo.toolkit").joinpath("torch_stub").joinpath("torch")
    with resources.as_file(source) as folder:
        shutil.copytree(folder, site / "torch", ignore=shutil.ignore_patterns("__pycache__"))


def _prove(python: Path, known: Release, folder: Path) -> None:
    """Start the toolkit once: an environment that fails never counts as installed."""
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", "from rknn.api import RKNN; RKNN()"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        code, text = answer.returncode, answer.stdout + answer.stderr
    except subprocess.TimeoutExpired:
        code, text = -1, "no answer within five minutes"
    if code != 0:
        raise RkzooError(
            f"RKNN-Toolkit2 {known.version} was installed but does not start.",
            f"The last line of its output: {logs.last_line(text) or f'exit status {code}'}",
            "Report this with the log; another toolkit version may work.",
            code=1,
            log=logs.keep_text(text, f"install-{known.version}"),
        )


def _size(folder: Path) -> int:
    return sum(
        path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink()
    )


_FETCHING = re.compile(r"^Downloading (\S+) \(([\d.]+)(\w+)\)")
_FETCHED = re.compile(r"^ Downloaded (\S+)")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class DownloadProgress:
    """Parses uv's download messages: bytes done of bytes announced."""

    def __init__(self) -> None:
        self._sizes: dict[str, float] = {}
        self.done = 0.0

    @property
    def total(self) -> float:
        """Bytes announced so far."""
        return sum(self._sizes.values())

    def read(self, line: str) -> bool:
        """True when the line changed the amounts."""
        if match := _FETCHING.match(line):
            name, size, unit = match.groups()
            self._sizes[name] = float(size) * _UNITS.get(unit, 1)
            return True
        if (match := _FETCHED.match(line)) and match[1] in self._sizes:
            self.done += self._sizes[match[1]]
            return True
        return False


def _uv(arguments: Sequence[str], known: Release, task: ProgressTask) -> None:
    # In the cache folder, so that no pyproject.toml or uv.toml of the user's project applies.
    environ = dict(os.environ)
    environ |= indexes.uv_environment(environ)
    environ |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    environ.pop("VIRTUAL_ENV", None)
    lines: list[str] = []
    fetches = DownloadProgress()
    with subprocess.Popen(
        [interpreter.uv(), *arguments],
        cwd=cache_dir("toolkits"),
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            for line in process.stderr or ():
                lines.append(line)
                if fetches.read(line):
                    task.update(fetches.done, fetches.total)
            code = process.wait()
        except BaseException:
            _kill(process)
            raise
    if code != 0:
        raise _explain(known, "".join(lines))


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        for _ in range(20):
            if process.poll() is not None:
                return
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# Explanations of failures, the first match wins: a pattern in uv's output, why, and what to do.
_STORIES = (
    (
        r"No space left on device|os error 28|quota exceeded|os error 122",
        "The disk is full.",
        "Free some space, or point RKZOO_CACHE (and UV_CACHE_DIR) at a disk that has room.",
    ),
    (
        r"Permission denied|Read-only file system",
        "A folder it needs cannot be written to.",
        "Point RKZOO_CACHE (and UV_CACHE_DIR) at a place you may write to.",
    ),
    (
        r"error sending request|dns error|[Cc]onnect|Connection refused|timed? ?out|tunnel"
        r"|network connectivity was disabled|offline|Failed to fetch",
        "The package index cannot be reached.",
        "Check the network and proxy, or name a mirror with PIP_INDEX_URL or UV_DEFAULT_INDEX.",
    ),
    (
        r"No solution found|not found in the package registry|no versions? of",
        "The package index in use does not offer a fitting set of packages.",
        "Use an index that mirrors PyPI fully (PIP_INDEX_URL or UV_DEFAULT_INDEX).",
    ),
)


def _explain(known: Release, text: str) -> RkzooError:
    what = f"RKNN-Toolkit2 {known.version} cannot be installed."
    log = logs.keep_text(text, f"install-{known.version}")
    for pattern, why, fix in _STORIES:
        if re.search(pattern, text):
            return RkzooError(what, why, fix, log=log)
    return RkzooError(
        what, f"uv says: {logs.last_line(text)}", "Read the log, then try again.", code=1, log=log
    )
