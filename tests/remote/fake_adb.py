"""In place of adb: `shell` runs the command here, `forward` listens on a port of its own process.
What a real adb does beyond that is not tried anywhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(port_file: str, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        Path(port_file).write_text(str(server.getsockname()[1]))
        while True:
            near, _ = server.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()


def main(words: list[str]) -> None:
    with open(os.environ["FAKE_ADB_LOG"], "a") as log:
        log.write(" ".join(words[:3] + words[3:][:1] + words[-1:]).replace("\n", " ") + "\n")
    assert words[:2] == ["-s", "1d2c"]
    if words[2] == "shell":
        os.execvp("sh", ["sh", "-c", words[3]])
    elif words[2:4] == ["forward", "tcp:0"]:
        path = words[4].removeprefix("localfilesystem:")
        port = f"{os.environ['FAKE_ADB_LOG']}.port"
        here = [sys.executable, __file__, "--serve", port, path]
        server = subprocess.Popen(here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        Path(f"{port}.pid").write_text(str(server.pid))
        while not Path(port).exists() or not Path(port).read_text():
            pass
        print(Path(port).read_text())
    elif words[2:4] == ["forward", "--remove"]:
        os.kill(int(Path(f"{os.environ['FAKE_ADB_LOG']}.port.pid").read_text()), 9)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2], sys.argv[3])
    else:
        main(sys.argv[1:])
