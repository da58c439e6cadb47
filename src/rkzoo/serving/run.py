"""`serve`: sockets, the HTTP server and other listeners around an engine, until a signal."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from rkzoo.errors import RkzooError
from rkzoo.protocol.board import ServerReady
from rkzoo.serving.engine import Engine

if TYPE_CHECKING:
    from rkzoo.serving.app import ErrorForm
    from rkzoo.serving.board_api import BoardApi

PARTS = ("oip", "predict", "openai_api", "metrics", "page")
"""Modules with `routes(engine)`, in this package; `error_form(path)` says how errors are told at
a path, where that is a form of its own."""
LISTENERS = {"grpc": "grpc_server", "wyoming": "wyoming_server"}
"""Modules with `serve(engine, settings, port)`, which gives a Listener, by the option's name."""
EXTRAS = {"grpc": "grpc", "wyoming": "wyoming"}
"""What the listener's module imports, and the extra of the same name brings."""

NEEDS = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")
"""What the extra serve brings."""

_CONNECTIONS = 1024
_GRACE = 30.0
_SILENCE = 20_000  # milliseconds


class Listener(Protocol):
    """A server beside the HTTP server."""

    port: int

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Settings:
    """Where a server listens, and to whom it answers.

    Attributes:
        host: Address; anything but the loopback needs a token.
        port: 0 takes a free one.
        socket: Path of a Unix socket, in place of host and port.
        token: What clients send as `Authorization: Bearer TOKEN`.
        certificate: PEM files of certificate and key for TLS.
        key: See `certificate`.
        listeners: Ports of LISTENERS by name.
        board: Whether the calls of a board under /rkzoo/v1 are answered.
        until_stdin_closes: End when stdin does, as a server behind ssh.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    socket: Path | None = None
    token: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    listeners: dict[str, int] = field(default_factory=dict)
    board: bool = False
    until_stdin_closes: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine can reach its HTTP."""
        return self.socket is not None or self.loopback

    @property
    def loopback(self) -> bool:
        """Whether `host`, where the listeners are in any case, is this machine's own."""
        from rkzoo.streaming.live import Address

        return Address(self.host, self.port).loopback

    @property
    def host_in_url(self) -> str:
        """`host` as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


def check(settings: Settings) -> None:
    """Raises RkzooError for a server that should not or cannot be."""
    if any(find_spec(name) is None for name in NEEDS):
        raise RkzooError(
            "This installation has no server.",
            "It comes with the extra serve.",
            'Run: pip install "rkzoo[serve]"',
        )
    for name in settings.listeners:
        if find_spec(EXTRAS[name]) is None:
            raise RkzooError(
                f"--{name} is not possible here.",
                f"It comes with the extra {name}.",
                f'Run: pip install "rkzoo[serve,{name}]"',
            )
    reachable = not settings.local or (bool(settings.listeners) and not settings.loopback)
    if reachable and not settings.token:
        raise RkzooError(
            f"A server at {settings.host} is reachable from other machines, and has no token.",
            "Anyone in the network could use the NPU.",
            "Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(24))' > token.txt,"
            " and give --token-file token.txt; or leave --host out.",
        )
    if (settings.certificate is None) != (settings.key is None):
        raise RkzooError(
            "TLS takes a certificate and its key.",
            "One of the two was given.",
            "Give both, --tls-cert cert.pem --tls-key key.pem.",
        )
    if settings.certificate is not None and settings.key is not None:
        _check_tls(settings.certificate, settings.key)


def _check_tls(certificate: Path, key: Path) -> None:
    import ssl

    try:
        # Without a password for the key one would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        raise RkzooError(
            f"TLS is not possible with the certificate {certificate} and the key {key}.",
            f"OpenSSL says: {getattr(error, 'strerror', None) or error}.",
            "Both are PEM files that the server can read; the key has no password, and is the"
            " certificate's.",
        ) from error


def serve(engine: Engine, settings: Settings, ready: Callable[[ServerReady], None]) -> None:
    """Serves until a signal, or until stdin closes; then answers what was taken, and ends.

    Args:
        engine: The models, not loaded yet.
        settings: Where and to whom.
        ready: Is called when the server listens; models may still be loading.

    Raises:
        RkzooError: The address cannot be used.
    """
    check(settings)
    with _listening(settings) as (sock, address):
        hopeless = asyncio.run(_serve(engine, settings, sock, address, ready))
    if hopeless:
        raise RkzooError(
            "None of the models could be loaded, so the server ended.",
            hopeless,
            f"Try it first: rkzoo run {shlex.quote(engine.status(engine.names()[0]).path)} INPUT",
        )


async def _serve(
    engine: Engine,
    settings: Settings,
    sock: socket.socket,
    address: str,
    ready: Callable[[ServerReady], None],
) -> str:
    """Serves; why no model could be loaded, where that is so."""
    import uvicorn

    from rkzoo.serving.app import Access, Traced, application
    from rkzoo.serving.http_limits import BoundedHttp

    api = _board(engine) if settings.board else None
    modules = [import_module(f"rkzoo.serving.{name}") for name in PARTS]
    routes = [*(api.routes() if api else ())]  # its sessions are models, too, and come first
    routes += [route for module in modules for route in module.routes(engine)]
    access = Access(settings.token, settings.socket is None and settings.loopback)
    config = uvicorn.Config(
        Traced(application(routes, access, partial(_error_form, modules)), engine.tell),
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(_GRACE),
        ssl_certfile=str(settings.certificate) if settings.certificate else None,
        ssl_keyfile=str(settings.key) if settings.key else None,
    )
    server = _server_of(config)
    if api:
        server.on_stop = api.stop
    engine.expect_all()
    threads = [threading.Thread(target=_load, args=(engine, server), name="load", daemon=True)]
    threads.append(threading.Thread(target=engine.watch, name="watch", daemon=True))
    if settings.until_stdin_closes:
        threads.append(threading.Thread(target=_wait_for_stdin, args=(server,), daemon=True))
    listeners: list[Listener] = []
    with _signals(server):
        try:
            addresses = [address]
            for name, port in settings.listeners.items():
                module = import_module(f"rkzoo.serving.{LISTENERS[name]}")
                listeners.append(await module.serve(engine, settings, port))
                addresses.append(f"{name}://{settings.host_in_url}:{listeners[-1].port}")
            for thread in threads:
                thread.start()
            server.on_start = lambda: ready(
                ServerReady(tuple(addresses), os.getpid(), version("rkzoo"))
            )
            await server.serve([sock])
            return engine.hopeless
        finally:
            for listener in listeners:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(listener.close(), _GRACE)
            if api:
                await api.close()
            await asyncio.to_thread(engine.stop, _GRACE)


def _error_form(modules: Sequence[Any], path: str) -> ErrorForm | None:
    """How the module that a path belongs to tells errors, where it says so."""
    forms = (getattr(module, "error_form", None) for module in modules)
    return next((form for at in forms if at is not None and (form := at(path))), None)


def _board(engine: Engine) -> BoardApi:
    from rkzoo.serving.board import Board
    from rkzoo.serving.board_api import BoardApi

    return BoardApi(Board(log=engine.log), engine)


def _server_of(config: Any) -> Any:
    import uvicorn  # late: a server alone needs it

    class Server(uvicorn.Server):
        """uvicorn's server, whose signals are ours."""

        on_start: Callable[[], None] = staticmethod(lambda: None)
        on_stop: Callable[[], None] = staticmethod(lambda: None)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                self.on_start()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            self.on_stop()  # it waits for what is answered, and leases last until they are ended
            await super().shutdown(sockets)

    return Server(config)


@contextmanager
def _signals(server: Any) -> Iterator[None]:
    """The first signal ends the server in good order, a second at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {number: signal.signal(number, stop) for number in numbers if number is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _load(engine: Engine, server: Any) -> None:
    """Loads the models. A server that has none of those that it was started for ends: whoever
    started it would take it for one that works."""
    engine.load_all()
    if engine.hopeless:
        server.should_exit = True


def _wait_for_stdin(server: Any) -> None:
    with suppress(OSError, ValueError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    server.should_exit = True


@contextmanager
def _listening(settings: Settings) -> Iterator[tuple[socket.socket, str]]:
    """The socket, bound, and its address as a client takes it. Raises RkzooError."""
    if settings.socket is not None:
        yield from _listening_in_files(settings.socket)
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        sock = socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise RkzooError(
            f"The server cannot listen at {settings.host}:{settings.port}.",
            f"The system says: {why}.",
            "Choose another port with --port (0 takes a free one), or as --host an address of "
            "this machine.",
        ) from error
    with sock:
        # asyncio does so for its own sockets only; an answer of two pieces took 40 ms more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A client that is gone without a word is noticed by what it does not receive.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)
        scheme = "https" if settings.certificate else "http"
        yield sock, f"{scheme}://{settings.host_in_url}:{sock.getsockname()[1]}"


def _listening_in_files(path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket in the file system that its owner alone can use."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and _dead(path):
                path.unlink()
        mask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise RkzooError(
            f"The server cannot listen at {path}.",
            f"The system says: {error.strerror or error}.",
            "Choose another path with --socket, in a folder of yours.",
        ) from error
    try:
        with sock:
            yield sock, f"unix:{path}"
    finally:
        path.unlink(missing_ok=True)


def _dead(path: Path) -> bool:
    """Whether nobody listens at a socket any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
