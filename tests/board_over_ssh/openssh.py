"""OpenSSH's own server on the loopback, as this user, with keys of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rkzoo.cli.signals import descendants

PATIENCE = 120


class Missing(Exception):
    """OpenSSH's server or client is not here."""


@dataclass(frozen=True)
class SshBoard:
    """What answers behind an address. `config` is of ssh's client, `home` the board's home folder,
    `server` the process of sshd."""

    name: str
    config: Path
    home: Path
    port: int
    server: int

    @property
    def address(self) -> str:
        return f"ssh://{self.name}"

    @property
    def client(self) -> str:
        """What RKZOO_SSH is to be."""
        return shlex.join(["ssh", "-F", str(self.config)])

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command line on the board."""
        line = [*shlex.split(self.client), self.name, "--", shlex.join(words)]
        return subprocess.run(
            line, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )

    def processes(self) -> list[int]:
        """What runs on the board, orphans of a cut connection too, by their home; and the processes
        of sshd that serve a connection."""
        mark = f"\0HOME={self.home}\0".encode()
        everyone = (int(name) for name in os.listdir("/proc") if name.isdecimal())
        own = {pid for pid in everyone if mark in _environment(pid)}
        return sorted({*own, *descendants(self.server)})

    def cut(self) -> int:
        """Cuts every connection, as a pulled cable does, and tells how many processes of sshd
        that were. What ran on the board is left to notice it."""
        served = [pid for pid in self.processes() if _program(pid).startswith("sshd")]
        for pid in served:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(served)


def _environment(pid: int) -> bytes:
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def served(name: str, folder: Path, login: Path, home: Path, *settings: str) -> Iterator[SshBoard]:
    """A server whose every login runs the program `login`, with the command line in
    SSH_ORIGINAL_COMMAND; `settings` are more lines of its configuration, the first counts. Raises
    Missing."""
    server = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if server is None or shutil.which("ssh") is None:
        raise Missing("OpenSSH is not installed (apt-get install openssh-server openssh-client)")
    if os.getuid() == 0:  # where sshd, as root, looks at who knocks
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(mode=0o700)
    for key in ("host", "client"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / key]
        subprocess.run(make, check=True)
    port = _free_port()
    (folder / "sshd.conf").write_text(
        "".join(f"{line}\n" for line in settings)
        + f"""ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowStreamLocalForwarding yes
ForceCommand {login}
"""
    )
    public = (folder / "host.pub").read_text().strip()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "ssh.conf").write_text(
        f"""Host {name}
  HostName 127.0.0.1
Host *
  Port {port}
  User {getpass.getuser()}
  IdentityFile {folder}/client
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
"""
    )
    with (folder / "sshd.log").open("wb") as log:
        line = [server, "-D", "-e", "-f", folder / "sshd.conf"]
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "sshd.log")
        yield SshBoard(name, folder / "ssh.conf", home, port, process.pid)
    finally:
        process.kill()
        for pid in SshBoard(name, folder, home, port, process.pid).processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"sshd does not listen: {log.read_text()}")
