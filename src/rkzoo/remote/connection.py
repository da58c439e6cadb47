"""How a board is reached: a server is started there by the system's own ssh or adb, and its socket
forwarded to this machine; or it runs already, and is asked by HTTP.

What is started here holds the server's life: it ends when its stdin closes, so nothing stays on the
board when this process ends, however it does, or when the cable is cut.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import secrets
import shlex
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import msgspec

from rkzoo.errors import RkzooError, printable
from rkzoo.files import temporary_folder
from rkzoo.protocol.board import VERSION, ServerReady
from rkzoo.remote.address import PORTS, Address
from rkzoo.remote.remedies import host_key_name, install
from rkzoo.remote.ssh_client import ssh_command

ADB = "RKZOO_ADB"
COMMAND = "RKZOO_BOARD_COMMAND"
"""What starts rkzoo on the board, in place of the one that is found there."""
TOKEN = "RKZOO_BOARD_TOKEN"
"""What an http or https board wants to be told."""

START_SECONDS = 60.0
"""For logging in (a password may be asked for) and starting the server."""
_END_SECONDS = 5.0
_MOST_LINE = 1 << 16
_KEPT_LINES = 20

_FOLDER_TAKEN = 73  # exit codes of the script below; 127 is the shell's for what is not found
_NOT_THERE = 127
_SSH_FAILED = 255
# What `rkzoo board setup` put there comes first: it is what a message about versions names.
# A folder of this user that no command line names, neither a server's nor such a script's, was left
# by one that was killed. That the own name is found proves that all are seen; the brackets keep
# grep from finding itself.
_SCRIPT = """umask 077
mkdir {folder} || exit 73
trap 'rm -rf {folder}' EXIT
trap 'exit 1' HUP INT TERM
used() {{
  cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -q "[/]${{1#/}}"
}}
if used {folder}; then
  for old in {parent}/rkzoo-{digits}; do
    [ -d "$old" ] && [ ! -L "$old" ] && [ -O "$old" ] && ! used "$old" && rm -rf "$old"
  done
fi
PATH="$HOME/.local/share/rkzoo/bin:$PATH"
run={command}
if [ -z "$run" ]; then
  run=$(command -v rkzoo) || {{ echo "machine: $(uname -m)" >&2; exit 127; }}
fi
{start} serve --board --socket {folder}/s --until-stdin-closes
"""


@dataclass(frozen=True)
class Endpoint:
    """Where the server of a board is asked, from this machine.

    Attributes:
        board: The board's address, as messages name it.
        socket: Path of a Unix socket; "" where it is asked by TCP.
        host: Else its host,
        port: its port,
        tls: whether it speaks TLS,
        token: and what it wants to be told.
    """

    board: str
    socket: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False
    token: str = field(default="", repr=False)


LastWords = Callable[[], str]
"""What the way to the board said last, "" for nothing: why it is gone."""


def connect(address: Address, stack: ExitStack) -> tuple[Endpoint, LastWords]:
    """Reaches a board.

    Args:
        address: Where it is.
        stack: Gives back what was started.

    Returns:
        Where its server listens, and what tells why it is gone when it is.

    Raises:
        RkzooError: It cannot be reached, or rkzoo cannot be started there.
    """
    return TRANSPORTS[address.scheme](address, stack)


# ---- the transports -----------------------------------------------------------------


def _ssh(address: Address, stack: ExitStack) -> tuple[Endpoint, LastWords]:
    local = _local_socket(stack)
    folder = f"/tmp/rkzoo-{secrets.token_hex(16)}"
    options = [
        *("-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"),
        *("-L", f"{local}:{folder}/s"),
    ]
    start = f"exec sh -c {shlex.quote(remote_script(folder))}"
    command = ssh_command(address, start, options)
    process = stack.enter_context(_running(command, str(address)))
    process.wait_until_ready()
    return Endpoint(str(address), socket=str(local)), process.last_words


def _adb(address: Address, stack: ExitStack) -> tuple[Endpoint, LastWords]:
    adb = [*_program(ADB, "adb"), *(("-s", address.host) if address.host else ())]
    folder = f"/tmp/rkzoo-{secrets.token_hex(16)}"
    command = [*adb, "shell", f"exec sh -c {shlex.quote(remote_script(folder))}"]
    process = stack.enter_context(_running(command, str(address)))
    process.wait_until_ready()
    # A port, as adb's own server listens on one: who may use this machine may use the device.
    done = _adb_says([*adb, "forward", "tcp:0", f"localfilesystem:{folder}/s"], str(address))
    if not done.isdecimal() or not 0 < int(done) < 1 << 16:
        raise RkzooError(
            f"adb forwards no port to {address}.",
            f"It says: {_shown(done) or 'nothing'}.",
            "Update adb (platform-tools), or reach the board by ssh.",
        )
    stack.callback(_quietly, [*adb, "forward", "--remove", f"tcp:{done}"])
    return Endpoint(str(address), host="127.0.0.1", port=int(done)), process.last_words


def _http(address: Address, stack: ExitStack) -> tuple[Endpoint, LastWords]:
    """Nothing is started: the server is there."""
    port = address.port or PORTS[address.scheme]
    token = os.environ.get(TOKEN, "")
    endpoint = Endpoint(
        str(address), host=address.host, port=port, tls=address.scheme == "https", token=token
    )
    return endpoint, lambda: ""


TRANSPORTS: dict[str, Callable[[Address, ExitStack], tuple[Endpoint, LastWords]]] = {
    "ssh": _ssh,
    "adb": _adb,
    "http": _http,
    "https": _http,
}


def remote_script(folder: str) -> str:
    """What a shell on the board runs: the server on a socket that nobody else may use, in a folder
    that must be new and goes with it.

    Args:
        folder: Its path, of letters that need no quoting.
    """
    own = os.environ.get(COMMAND, "")
    start = own or '"$run"'
    return _SCRIPT.format(
        folder=folder,
        parent=os.path.dirname(folder),
        digits="[0-9a-f]" * 32,
        command=shlex.quote(own),
        start=start,
    )


def _program(variable: str, usual: str) -> list[str]:
    return shlex.split(os.environ.get(variable, "")) or [usual]


def _local_socket(stack: ExitStack) -> Path:
    import socket

    if not hasattr(socket, "AF_UNIX"):
        raise RkzooError(
            "This system cannot reach a board by ssh.",
            "It has no Unix sockets that Python can use.",
            "Run rkzoo serve --board on the board, and give its address: --on http://board:8000.",
        )
    return stack.enter_context(temporary_folder()) / "s"


def _adb_says(command: Sequence[str], board: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=START_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RkzooError(
            f"adb does not answer for {board}.", f"{error}.", "Try adb devices."
        ) from error
    if done.returncode:
        raise _failed(board, done.returncode, done.stderr.splitlines()[-_KEPT_LINES:])
    return done.stdout.strip()


def _quietly(command: Sequence[str]) -> None:
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, capture_output=True, timeout=_END_SECONDS)


# ---- what was started ---------------------------------------------------------------


class _Process:
    """A client of ssh or adb. Its stdin stays open for as long as the server is wanted."""

    def __init__(self, process: subprocess.Popen[bytes], board: str) -> None:
        self._process, self._board = process, board
        self._ready = False
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"rkzoo-{board}")
            for target in (self._read_answers, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self) -> ServerReady:
        """The server's greeting. Raises RkzooError where it does not come in time, or the process
        ends, or the board speaks another protocol."""
        end = monotonic() + START_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - monotonic()))
            except queue.Empty:
                raise RkzooError(
                    f"{self._board} does not answer.",
                    f"No server began to listen there within {START_SECONDS:.0f} s."
                    + (f" {said}" if (said := self.last_words()) else ""),
                    "Try to log in there with ssh or adb, and run rkzoo doctor there.",
                    code=1,
                ) from None
            if not line:
                self._threads[1].join(_END_SECONDS)
                raise _failed(self._board, self._process.wait(), list(self._said))
            try:
                ready = msgspec.json.decode(line, type=ServerReady)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # what a shell says when one logs in
            self._ready = True
            check_version(self._board, ready.rkzoo, ready.protocol)
            return ready

    def last_words(self) -> str:
        """The last line on stderr."""
        return _last(self._said)

    def close(self) -> None:
        """Ends the server by closing its stdin, and the process if it does not follow. One that may
        still ask for a password reads no stdin, and puts the terminal right when it is told to end.
        """
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        ends = (self._process.terminate, self._process.kill)
        for end in (None, *ends) if self._ready else ends:
            if end is not None:
                end()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
                break
        for thread in self._threads:
            thread.join(_END_SECONDS)

    def _read_answers(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with suppress(OSError, ValueError):
            waiting = 0
            while line := stream.readline(_MOST_LINE):
                # What comes after the greeting is nobody's.
                if waiting < 1000:
                    self._lines.put(line)
                    waiting += 1
        self._lines.put(b"")

    def _read_errors(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        with suppress(OSError, ValueError):
            while line := stream.readline(_MOST_LINE):
                self._said.append(line.decode("utf-8", "replace").strip())


def _deaf(program: str) -> list[str]:
    """What starts a program so that Ctrl-C in the terminal, which reaches the whole group, does not
    end it before this process has ended what it does: ssh leaves signals alone that were ignored.
    It stays in the group, for one in another cannot ask for a password. Raises OSError where there
    is no such program.
    """
    if os.name != "posix":
        return []
    if shutil.which(program) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    return ["sh", "-c", "trap '' INT HUP QUIT; exec \"$@\"", "sh"]


@contextmanager
def _running(command: Sequence[str], board: str) -> Iterator[_Process]:
    try:
        started = subprocess.Popen(
            [*_deaf(command[0]), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise RkzooError(
            f"{command[0]} cannot be started.",
            f"The system says: {error.strerror}.",
            "Install it (Debian: openssh-client, adb), or give the board another address.",
        ) from error
    process = _Process(started, board)
    try:
        yield process
    finally:
        process.close()


# ---- why it failed ------------------------------------------------------------------

# As OpenSSH's server tells that AllowTcpForwarding or AllowStreamLocalForwarding is off.
_NO_FORWARDING = (
    r"administratively prohibited|connect failed: open failed|unknown channel type",
    "Its ssh server does not forward Unix sockets.",
    "Set AllowStreamLocalForwarding yes in its /etc/ssh/sshd_config, or run rkzoo serve --board"
    " there and give --on http://HOST:8000.",
)


@dataclass(frozen=True)
class Cause:
    """Why a board cannot be used, the remedy, and the exit code."""

    why: str
    fix: str
    code: int = 2


_CUT = Cause(
    "The connection was cut.", "Check the board and the cable, and run this again.", code=1
)
_CUT_WORDS = r"closed by remote host|client_loop: send disconnect|Timeout, server .* not responding"
_CAUSES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "Its host key is another than the one that ssh knows.",
        "If the board was set up anew, remove the old key: ssh-keygen -R {host}",
    ),
    (
        r"Host key verification failed|authenticity of host",
        "ssh does not know its host key yet.",
        "Log in once with ssh, which shows the key and asks, and run this again.",
    ),
    (
        r"Permission denied \(|Too many authentication failures",
        "It does not let this user in.",
        "Check the user's name, and copy your key there with ssh-copy-id.",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        "Nothing has that name.",
        "Check the address, or give the board's IP address.",
    ),
    (
        r"No route to host|Connection timed out|Network is unreachable|Operation timed out|"
        r"Connection refused|Connection reset|kex_exchange_identification",
        "It cannot be reached, or no ssh server answers.",
        "Check that it is switched on, and that ssh logs in.",
    ),
    (
        r"no devices/emulators found|device '.*' not found|device offline|unauthorized",
        "adb shows no such device that it may use.",
        "See adb devices, and allow debugging on the board.",
    ),
    (
        r"invalid choice: 'serve'",
        "The rkzoo there is too old to serve.",
        "{install}",
    ),
)
"""What ssh, adb and rkzoo print, and what it stands for."""


def cause(board: str, code: int, said: Sequence[str]) -> Cause | None:
    """Why a board cannot be used; None where it is not known.

    Args:
        board: Its address.
        code: Exit code of what was started.
        said: The last lines that it printed.
    """
    text = "\n".join(said)
    # ssh says nothing where what it runs there was killed; a negative code is its own end.
    if re.search(_CUT_WORDS, text) or code < 0 or (code == _SSH_FAILED and not _last(said)):
        return _CUT
    for pattern, why, fix in _CAUSES:
        if re.search(pattern, text):
            host = _host_key(text, board) if "{host}" in fix else ""
            return Cause(why, fix.format(board=board, host=host, install=install(board)))
    if code == _NOT_THERE:
        machine = re.search(r"^machine: (\w+)$", text, re.MULTILINE)
        return Cause("There is no rkzoo there.", install(board, machine[1] if machine else ""))
    if code == _FOLDER_TAKEN:
        return Cause("No private folder can be made below its /tmp.", "Free some space there.")
    return None


def _host_key(said: str, board: str) -> str:
    """The name of a changed host key: ssh's own, which an alias of its configuration is not."""
    told = re.search(r"^Host key for ([\w.:\[\]-]+) has changed", said, re.MULTILINE)
    return shlex.quote(told[1]) if told else host_key_name(board)


def not_forwarded(words: str) -> tuple[str, str] | None:
    """Why a connection ended at once, and the remedy, where ssh said that it forwards none."""
    pattern, why, fix = _NO_FORWARDING
    return (why, fix) if re.search(pattern, words) else None


def _failed(board: str, code: int, said: Sequence[str]) -> RkzooError:
    last = _last(said)
    told = cause(board, code, said) or Cause(
        f"It says: {last}" if last else f"What was started there ended with code {code}.",
        f"Run it there by hand: rkzoo serve --board. {install(board)}",
    )
    return RkzooError(f"{board} cannot be used.", told.why, told.fix, code=told.code)


def check_version(board: str, rkzoo: str, protocol: int) -> None:
    """Raises RkzooError where a board speaks another protocol than this program."""
    if protocol == VERSION:
        return
    from importlib.metadata import version

    own = f"rkzoo {version('rkzoo')} (protocol {VERSION})"
    raise RkzooError(
        f"{board} and this PC do not understand each other.",
        f"The board has rkzoo {_shown(rkzoo)} (protocol {protocol}), and this PC has {own}.",
        f"{install(board)} (or update this PC)",
    )


_HARMLESS = r"\bListening at \S+ \(Ctrl-C ends it\)"
"""In a line of the server's log, behind its time, or of one in JSON."""


def _last(lines: Sequence[str]) -> str:
    """The last line with words in it, but for where the server says that it listens."""
    told = (line for line in reversed(lines) if re.search(r"\w", line))
    return next((_shown(line) for line in told if not re.search(_HARMLESS, line)), "")


def _shown(line: str) -> str:
    return printable(" ".join(line.split()))[:300]
