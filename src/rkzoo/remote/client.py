"""The calls of a board, typed: HTTP by the standard library, over a Unix socket or TCP.

Every thread may call; each call has a connection of its own, which is kept for the next. What goes
wrong is one RkzooError: the board's own, told as "On BOARD: ...", or ConnectionLost.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
    RemoteDisconnected,
)
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from rkzoo.errors import RkzooError, printable
from rkzoo.files import open_file, os_errors_explained, sha256_of
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.protocol import board as wire
from rkzoo.protocol.board import (
    ClocksSet,
    Hello,
    Layers,
    Lease,
    ModelMemory,
    Opened,
    OpenSession,
    Problem,
    SetClocks,
    Stored,
    Timed,
)
from rkzoo.protocol.tensors import HEADER_LENGTH, Body, decode_response, encode_request
from rkzoo.remote.connection import TOKEN, Endpoint, LastWords, check_version, not_forwarded
from rkzoo.remote.remedies import as_run_there
from rkzoo.session import Array, Closeable

PIECE = 4 << 20
"""Bytes of a file that are sent at once."""

_CONNECT_SECONDS = 20.0
_SECONDS = 60.0  # an ordinary call
_LONG_SECONDS = 600.0  # opening a large model, many runs, what doctor looks at
_LEASE_SECONDS = 8 * wire.BEAT
_PAUSES = (0.0, 0.2, 1.0)  # before each try of a call that may be repeated
_LOST_SECONDS = 0.5
_MOST_JSON = 64 << 20
_MOST_BYTES = 1 << 29
_MOST_IDLE = 16

T = TypeVar("T")


class ConnectionLost(RkzooError):
    """The connection to a board was cut, or nothing listens at its end."""


class NoRoom(RkzooError):
    """A board has no room for a file."""


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Versions(msgspec.Struct):
    """Of a greeting, what every version of it has."""

    rkzoo: str = "?"
    protocol: int = 0


class Client(Closeable):
    """Calls of a board.

    Args:
        endpoint: Where its server listens.
        lease: A lease that another process holds; `take_lease` takes one of its own.
        last_words: What tells why the way there is gone.
    """

    def __init__(
        self, endpoint: Endpoint, lease: str = "", last_words: LastWords = lambda: ""
    ) -> None:
        self.endpoint, self.lease = endpoint, lease
        self.board = endpoint.board
        self._last_words = last_words
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._idle: list[HTTPConnection] = []
        # Sockets apart: a connection lets go of its own when an answer is to be its last.
        self._busy: dict[HTTPConnection, socket.socket] = {}
        self._lost, self._closed = threading.Event(), False

    # --- the board --------------------------------------------------------------------

    def hello(self) -> Hello:
        """Versions, and the machine. Raises RkzooError where its protocol is another."""
        _, data = self._call("GET", wire.HELLO)
        versions = self._read(data, _Versions)
        check_version(self.board, versions.rkzoo, versions.protocol)
        return self._read(data, Hello)

    def take_lease(self) -> None:
        """Takes a lease: what is opened under it is given back when it ends. A thread reads it; its
        end is the end of every call."""
        connection = self._fresh(_LEASE_SECONDS)
        try:
            connection.connect()
            with self._lock:
                self._busy[connection] = connection.sock
            connection.request("POST", wire.LEASES, headers=self._headers({}))
            response = connection.getresponse()
            if response.status >= 400:
                raise self._problem(response, response.read(_MOST_JSON))
            line = response.readline(_MOST_JSON)
            if not line:
                raise HTTPException("the lease ended at once")
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._cut(error) from error
        self.lease = self._read(line, Lease).lease
        threading.Thread(
            target=self._follow, args=(connection, response), daemon=True, name="rkzoo-lease"
        ).start()

    def doctor(self, sha256: str = "", name: str = "") -> dict[str, Any]:
        """What `rkzoo doctor --json` prints there; of a file too, that was sent as `sha256`."""
        query = f"?{urlencode({'file': sha256, 'name': name})}" if sha256 else ""
        _, data = self._call("GET", wire.DOCTOR + query, timeout=_LONG_SECONDS)
        return self._read(data, dict[str, Any])

    def capture(self) -> bytes:
        """The .tar of `rkzoo doctor --capture`."""
        return self._call("GET", wire.CAPTURE, timeout=_LONG_SECONDS, most=_MOST_BYTES)[1]

    def machine(self) -> bytes:
        """Its state now, clocks, heat, NPU load and all, as `soc.machine.machine_from_json` reads
        it."""
        return self._call("GET", wire.MACHINE)[1]

    def clocks(self, wanted: SetClocks) -> ClocksSet:
        """Shows or sets clocks; those that are held are given back with the lease."""
        repeat = wanted.action == "show"
        return self._read(self._post(wire.CLOCKS, wanted, repeat=repeat), ClocksSet)

    # --- files ------------------------------------------------------------------------

    def put(self, file: Path, report: ProgressReporter = SILENT) -> str:
        """Sends a file, unless it is there; what a cut left there is not sent again.

        Args:
            file: A regular file.
            report: Is shown what was sent.

        Returns:
            Its sha256, by which the board knows it.

        Raises:
            RkzooError: It cannot be read or kept there, or the connection stays cut.
        """
        sha256 = sha256_of(file)
        with self._sending:  # threads that send the same file would send it several times
            stored = self._stored(sha256)
            if not stored.complete:
                self._send(file, stored, report)
        return sha256

    def _send(self, file: Path, stored: Stored, report: ProgressReporter) -> None:
        path = f"{wire.FILES}/{stored.sha256}"
        with os_errors_explained(f"{file} cannot be read."), open_file(file) as stream:
            size = stream.seek(0, 2)
            with report.task(f"Sending {file.name} to {self.board}", size, bytes=True) as bar:
                tries = 0
                while not stored.complete:
                    before = stored.size
                    try:
                        stored = self._put_piece(path, stream, before, size)
                    except NoRoom as error:
                        what = f"{self.board} has no room for {file.name}."
                        raise RkzooError(what, error.why, error.fix) from error
                    except ConnectionLost:
                        tries += 1
                        if self.lost or tries > len(_PAUSES):
                            raise
                        stored = self._stored(stored.sha256)
                        continue
                    if not stored.complete and stored.size <= before:
                        raise RkzooError(
                            f"{self.board} does not keep {file.name}.",
                            f"{stored.size} of {size} bytes are there, and they become no more.",
                            "Send it again; if that does not help, update rkzoo there.",
                            code=1,
                        )
                    tries = 0
                    bar.update(stored.size)

    def _stored(self, sha256: str) -> Stored:
        status, data = self._call("GET", f"{wire.FILES}/{sha256}", missing=True)
        return Stored(sha256, 0, False) if status == 404 else self._read(data, Stored)

    def _put_piece(self, path: str, stream: Any, start: int, size: int) -> Stored:
        if not 0 <= start <= size:
            start = 0
        stream.seek(start)
        data = stream.read(min(PIECE, size - start))
        where = f"bytes {start}-{start + len(data) - 1}/{size}" if data else f"bytes */{size}"
        headers = {"Content-Range": where, "Content-Type": "application/octet-stream"}
        _, answer = self._call("PUT", path, data, headers, timeout=_LONG_SECONDS, repeat=False)
        return self._read(answer, Stored)

    # --- sessions ---------------------------------------------------------------------

    def open(self, wanted: OpenSession) -> Opened:
        """Opens a model that was sent."""
        data = self._post(wire.SESSIONS, wanted, timeout=_LONG_SECONDS)
        return self._read(data, Opened)

    def close_session(self, session: str) -> None:
        """Gives a session back; one that is gone is no error."""
        self._call("DELETE", f"{wire.SESSIONS}/{quote(session, safe='')}", missing=True)

    def infer(self, session: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs a session: input name to array, to output name to array (read-only)."""
        body = encode_request(inputs)
        return self._infer(f"/v2/models/{quote(session, safe='')}/infer", body.data, body.headers)

    def record(self, session: str, file: bytes, name: str) -> dict[str, Array]:
        """What was found in a file (a picture, a sound), as the arrays of its record."""
        path = f"{wire.SESSIONS}/{quote(session, safe='')}/record?{urlencode({'name': name})}"
        return self._infer(path, file, {"content-type": "application/octet-stream"})

    def time(self, session: str, inputs: Mapping[str, Array], runs: int) -> Timed:
        """Runs a session `runs` times with the same inputs; the times are the board's own."""
        body = encode_request(inputs, parameters={"runs": runs})
        path = f"{wire.SESSIONS}/{quote(session, safe='')}/time"
        _, data = self._call("POST", path, body.data, body.headers, timeout=_LONG_SECONDS)
        return self._read(data, Timed)

    def layers(self, session: str) -> Layers:
        """Times per layer of a session that was opened to be profiled."""
        return self._of_session(session, "layers", Layers)

    def memory(self, session: str) -> ModelMemory:
        """Memory that a session's model takes."""
        return self._of_session(session, "memory", ModelMemory)

    def _of_session(self, session: str, what: str, kind: type[T]) -> T:
        path = f"{wire.SESSIONS}/{quote(session, safe='')}/{what}"
        return self._read(self._call("GET", path, timeout=_LONG_SECONDS)[1], kind)

    def _infer(self, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Array]:
        answer: dict[str, str] = {}
        _, data = self._call(
            "POST", path, body, headers, timeout=_LONG_SECONDS, most=_MOST_BYTES, answer=answer
        )
        length = answer.get(HEADER_LENGTH.lower())
        if length is not None and not length.isdecimal():
            raise self._unreadable(f"{HEADER_LENGTH} is {length!r}")
        try:
            return decode_response(Body(data, None if length is None else int(length)))
        except RkzooError as error:
            raise self._unreadable(error.why) from error

    # --- one call ---------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether the connection was cut, and stays so."""
        return self._lost.is_set() or self._closed

    def close(self) -> None:
        """Ends the lease and every call."""
        self._closed = True
        self._end_calls()

    def _post(
        self, path: str, record: msgspec.Struct, *, timeout: float = _SECONDS, repeat: bool = False
    ) -> bytes:
        headers = {"Content-Type": "application/json"}
        data = msgspec.json.encode(record)
        return self._call("POST", path, data, headers, timeout=timeout, repeat=repeat)[1]

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = _SECONDS,
        most: int = _MOST_JSON,
        repeat: bool = True,
        missing: bool = False,
        answer: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One call, and what came back.

        Args:
            method: Of HTTP.
            path: And query.
            body: What is sent.
            headers: Beside those of every call.
            timeout: Seconds that the board may be silent.
            most: Bytes of an answer at the most.
            repeat: Whether it may be made again where the connection breaks. One that may not
                is made on a new connection, which has not been idle for too long.
            missing: Whether 404 is an answer and no error.
            answer: Receives the headers of the answer, their names in lower case.

        Raises:
            RkzooError: The board says what is wrong, or the connection is cut.
        """
        sent = self._headers(headers or {})
        failure: BaseException | None = None
        for number, pause in enumerate(_PAUSES if repeat else _PAUSES[:1]):
            if self.lost:
                break
            time.sleep(pause)
            try:
                connection = self._taken(timeout, fresh=number > 0 or not repeat)
                response, data = self._exchange(connection, method, path, body, sent, most)
            except TimeoutError as error:
                raise self._silent(timeout) from error
            except (OSError, HTTPException) as error:
                failure = error
                continue
            if response.status >= 400 and not (missing and response.status == 404):
                raise self._problem(response, data)
            if answer is not None:
                answer.update((name.lower(), value) for name, value in response.getheaders())
            return response.status, data
        raise self._cut(failure) from failure

    def _exchange(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        most: int,
    ) -> tuple[HTTPResponse, bytes]:
        kept = False
        try:
            # A server that refuses a body may answer and close before it has read all of it.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            data = response.read(most + 1)
            if len(data) > most:
                raise self._unreadable(f"it has more than {most} bytes")
            if response.length:  # what is left
                raise IncompleteRead(data, response.length)
            kept = not response.will_close
            return response, data
        finally:
            with self._lock:
                self._busy.pop(connection, None)
                kept = kept and not self.lost and len(self._idle) < _MOST_IDLE
                if kept:
                    self._idle.append(connection)
            if not kept:
                connection.close()

    def _taken(self, timeout: float, *, fresh: bool) -> HTTPConnection:
        with self._lock:
            connection = self._idle.pop() if self._idle and not fresh else None
        if connection is None:
            connection = self._fresh(_CONNECT_SECONDS)
            try:
                connection.connect()
            except BaseException:
                connection.close()
                raise
        connection.sock.settimeout(timeout)
        with self._lock:
            self._busy[connection] = connection.sock
        return connection

    def _fresh(self, timeout: float) -> HTTPConnection:
        end = self.endpoint
        if end.socket:
            return _UnixConnection(end.socket, timeout)
        if end.tls:
            return HTTPSConnection(end.host, end.port, timeout=timeout)
        return HTTPConnection(end.host, end.port, timeout=timeout)

    def _headers(self, own: Mapping[str, str]) -> dict[str, str]:
        token, lease = self.endpoint.token, self.lease
        return {
            **own,
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **({wire.LEASE_HEADER: lease} if lease else {}),
        }

    def _follow(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        """Reads the lease until it ends: by a cut, or because it is given back."""
        with suppress(OSError, HTTPException, ValueError, AttributeError):
            while response.readline(_MOST_JSON):
                pass
        if not self._closed:
            self._lost.set()
            self._end_calls()
        with self._lock:
            self._busy.pop(connection, None)
        connection.close()

    def _end_calls(self) -> None:
        """Wakes whoever waits for an answer; none will come."""
        with self._lock:
            idle, self._idle = self._idle, []
            waiting = list(self._busy.values())
        for end in waiting:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for connection in idle:
            connection.close()

    # --- errors -----------------------------------------------------------------------

    def _read(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unreadable(str(error)) from error

    def _problem(self, response: HTTPResponse, data: bytes) -> RkzooError:
        """What the board says went wrong."""
        if response.status == HTTPStatus.UNAUTHORIZED:
            return self._token_wanted()
        try:
            told = msgspec.json.decode(data, type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return RkzooError(
                f"{self.board} does not do that.",
                f"It answers {response.status} {_shown(response.reason)}.",
                "Check the address: it may be another server, or one without --board.",
                code=1,
            )
        what, why, fix = (_shown(text) for text in (told.what or told.error, told.why, told.fix))
        fix = as_run_there(self.board, fix)
        last = _shown(told.log.strip().splitlines()[-1]) if told.log.strip() else ""
        if last and last not in why:
            why = f"{why} The last line there: {last}".strip()
        full = response.status == HTTPStatus.INSUFFICIENT_STORAGE
        kind = NoRoom if full else RkzooError
        return kind(f"On {self.board}: {what}", why, fix, code=2 if told.code == 2 else 1)

    def _token_wanted(self) -> RkzooError:
        given = bool(self.endpoint.token)
        return RkzooError(
            f"{self.board} asks for a token.",
            f"The one in {TOKEN} is another." if given else f"{TOKEN} is not set.",
            "Set it to the token that rkzoo serve was started with there, and run this again:"
            f" export {TOKEN}=TOKEN",
        )

    def _unreadable(self, why: str) -> RkzooError:
        return RkzooError(
            f"The answer of {self.board} cannot be read.",
            f"{why[:1].upper()}{_shown(why)[1:].rstrip('.')}.",
            "Update rkzoo there, or check that nothing changes what goes over the network.",
            code=1,
        )

    def _silent(self, seconds: float) -> ConnectionLost:
        return ConnectionLost(
            f"{self.board} does not answer.",
            f"It was silent for {seconds:.0f} s.",
            "Look what it does (rkzoo doctor there), and run this again.",
            code=1,
        )

    def _cut(self, error: BaseException | None) -> ConnectionLost:
        if self.lease and not self._closed:
            # Whether it is gone altogether, and what was said then, is known a little later.
            self._lost.wait(_LOST_SECONDS)
        words = self._last_words() or (_shown(f"{error}") if error is not None else "")
        if refused := not_forwarded(words):
            return ConnectionLost(f"{self.board} cannot be used.", *refused, code=1)
        if self.board.startswith("http") and not self.lease:
            why, fix = _unreached(error, self.endpoint)
            return ConnectionLost(f"{self.board} cannot be reached.", why, fix, code=1)
        return ConnectionLost(
            f"The connection to {self.board} was cut.",
            f"The last that was heard: {words.rstrip('.')}." if words else "",
            "Check the board and the cable, and run this again; files that were sent are kept.",
            code=1,
        )


def _unreached(error: BaseException | None, end: Endpoint) -> tuple[str, str]:
    """Why nothing was heard at an http address, and the remedy."""
    port = "Check the port: rkzoo serve --board tells it there when it starts."
    if isinstance(error, SSLCertVerificationError):
        return (
            f"Its certificate is not trusted: {_shown(error.verify_message).rstrip('.')}.",
            "Name what it is signed by: export SSL_CERT_FILE=FILE.pem",
        )
    if isinstance(error, SSLError):
        place = f"http://{end.board.removeprefix('https://')}"
        return "What listens there does not speak TLS.", f"Try --on {place}, or check the port."
    if isinstance(error, RemoteDisconnected | ConnectionResetError):
        tls = "" if end.tls else " Where that server speaks TLS, give --on https://HOST:PORT."
        return "What listens there ends the connection without an answer.", f"{port}{tls}"
    if isinstance(error, HTTPException):
        return "What listens there does not speak HTTP.", port
    words = _shown(f"{error}") if error is not None else ""
    return (
        f"The system says: {words.rstrip('.')}." if words else "",
        "Check the address, and that rkzoo serve --board runs there.",
    )


def _shown(text: str) -> str:
    return printable(" ".join(text.split()))[:500]
