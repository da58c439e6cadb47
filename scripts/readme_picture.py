"""Makes docs/demo.jpg, the README's picture, out of what `rkzoo demo` wrote.

rkzoo demo && python scripts/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

import cv2

from rkzoo.vision.image import read, write

WIDTH = 1400


def main() -> None:
    picture = read(Path("demo-out/page-simulator.png"))
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    write(Path("docs/demo.jpg"), cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
