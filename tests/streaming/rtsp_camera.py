"""A camera to kill: a small RTSP server that sends JPEG over RTP (RFC 2326, RFC 2435).

python rtsp_camera.py PORT: serves rtsp://127.0.0.1:PORT/ until it is killed; each picture has
its count as grey value. RTP travels inside the RTSP connection, as OpenCV asks for.
"""

from __future__ import annotations

import socketserver
import struct
import sys
import time

import cv2
import numpy as np

SIZE = (240, 320)
FPS = 25
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    f"m=video 0 RTP/AVP 26\r\na=framerate:{FPS}\r\na=control:track0\r\n"
)


def parts(jpeg: bytes) -> tuple[bytes, bytes]:
    """The quantisation tables and the compressed data."""
    tables, at = b"", 2
    while True:
        marker, length = struct.unpack(">HH", jpeg[at : at + 4])
        segment = jpeg[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xFFDB:
            for start in range(0, len(segment), 65):
                tables += segment[start + 1 : start + 65]
        if marker == 0xFFDA:
            return tables, jpeg[at:-2]


def packets(image: np.ndarray, stamp: int, first: int) -> list[bytes]:
    """One picture as RTP packets."""
    tables, data = parts(cv2.imencode(".jpg", image)[1].tobytes())
    found, at = [], 0
    while at < len(data):
        piece = data[at : at + 1200]
        last = at + len(piece) == len(data)
        rtp = struct.pack(
            ">BBHII", 0x80, 26 | (0x80 if last else 0), (first + len(found)) & 0xFFFF, stamp, 7
        )
        head = struct.pack(
            ">BBHBBBB", 0, at >> 16, at & 0xFFFF, 1, 255, image.shape[1] // 8, image.shape[0] // 8
        )
        if not at:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        found.append(rtp + head + piece)
        at += len(piece)
    return found


class Camera(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (line := self.rfile.readline().decode()).strip():
            headers = {}
            while (header := self.rfile.readline().decode()).strip():
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            method = line.split()[0]
            self.reply(method, headers)
            if method == "PLAY":
                self.play()
                return

    def reply(self, method: str, headers: dict[str, str]) -> None:
        body = SDP if method == "DESCRIBE" else ""
        lines = ["RTSP/1.0 200 OK", f"CSeq: {headers.get('cseq', '1')}", "Session: 1"]
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        if method == "SETUP":
            lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        if body:
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def play(self) -> None:
        number = sent = 0
        start = time.monotonic()
        while True:
            image = np.full((*SIZE, 3), number % 256, np.uint8)
            for packet in packets(image, number * 90000 // FPS, sent):
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
                sent += 1
            number += 1
            time.sleep(max(0.0, start + number / FPS - time.monotonic()))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Camera) as server:
        server.serve_forever()
