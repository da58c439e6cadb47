"""`rkzoo serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

START_SECONDS = 60.0


@dataclass
class Server:
    """A server that runs. `url` has no slash at its end ("" where it listens on a Unix socket
    only); `ready` is what it printed when it listened; `lines` is what it said on stderr."""

    url: str
    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    lines: list[str] = field(default_factory=list)

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        timeout: float = 60,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (their names in small letters) and body of an answer."""
        request = Request(self.url + path, body, dict(headers or {}), method=method)
        try:
            with urlopen(request, timeout=timeout) as answer:
                return answer.status, _small(answer.headers), answer.read()
        except HTTPError as error:
            with error:
                return error.code, _small(error.headers), error.read()

    def stop(self, seconds: float = 40) -> int:
        """Ends it as systemd does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def _small(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextmanager
def serving(
    *args: str,
    env: Mapping[str, str] | None = None,
    loaded: bool = True,
    cwd: Path | None = None,
) -> Iterator[Server]:
    """Runs `rkzoo serve ARGS` on a free port until the block ends.

    Args:
        args: Words of its command line. Without --port or --socket among them a free port is taken.
        env: Environment beside this one's own.
        cwd: Its folder.
        loaded: Wait until every model is loaded, not only until it listens.
    """
    where = () if {"--port", "--socket"} & set(args) else ("--port", "0")
    process = subprocess.Popen(
        [sys.executable, "-m", "rkzoo", "serve", *args, *where, "--json"],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lines: list[str] = []
    reader = threading.Thread(target=_collect, args=(process, lines), daemon=True)
    reader.start()
    try:
        assert process.stdout is not None
        select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline()
        assert line, f"it did not start: {lines}"
        ready = json.loads(line)
        url = ready["addresses"][0]
        server = Server(url if url.startswith("http") else "", process, ready, lines)
        if loaded and server.url.startswith("http:"):
            _wait_until_loaded(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(5)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _collect(process: subprocess.Popen[bytes], lines: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line.decode(errors="replace").rstrip())


def _wait_until_loaded(server: Server) -> None:
    end = monotonic() + START_SECONDS
    while monotonic() < end:
        assert server.process.poll() is None, server.lines
        try:
            if server.ask("/v2/health/ready")[0] == 200:
                return
        except URLError:
            pass
        sleep(0.05)
    raise AssertionError(f"its models are not loaded: {server.lines}")
