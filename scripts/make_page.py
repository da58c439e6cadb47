"""Makes the picture that `rkzoo demo` reads: src/rkzoo/assets/page.jpg and page.txt.

    python scripts/make_page.py FONT

FONT is Noto Sans CJK (SIL Open Font License; `rkzoo fetch font-cjk`). Text and layout are
ours; the same font and seed give the same picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from rkzoo.vision.synthetic_pages import Image, Line, line_width, photograph, texture, write_line

ASSETS = Path(__file__).parent.parent / "src" / "rkzoo" / "assets"
WIDTH, HEIGHT = 1200, 900
SEED = 7
INK, BLUE, RED, GREY, WHITE = (
    (38, 34, 32),
    (140, 72, 20),
    (48, 40, 190),
    (95, 90, 88),
    (250, 250, 250),
)

# In reading order.
LINES = (
    Line("From a trained model to the chip", 70, 48, 58, INK, bold=True),
    Line("从训练好的模型到芯片", 70, 128, 48, BLUE, bold=True),
    Line("The network is only half of the work.", 70, 222, 32, INK),
    Line("The other half is the way onto the board:", 70, 270, 32, INK),
    Line("convert, quantize, run, compare, explain.", 70, 318, 32, INK),
    Line("先在电脑上看到结果，再放到开发板上。", 70, 386, 34, INK),
    Line("每一个错误都用一句话说明原因。", 70, 438, 34, INK),
    Line("No riddles at the edge", 92, 530, 36, WHITE),
    Line("边缘智能，简单可靠", 660, 530, 36, WHITE),
    Line("One page, two languages, many sizes of letters.", 70, 630, 26, INK),
    Line("大字容易，小字也要看清楚。", 70, 676, 24, INK),
    Line("CHECKED 已检验", 800, 662, 44, RED, -9, bold=True),
    Line("Small print: order 2025-0814, lens 3.6 mm.", 70, 720, 24, GREY),
    Line("This line stands on its head.", 70, 792, 30, BLUE, 180),
    Line("最后一行：谢谢阅读！", 790, 800, 30, INK),
)


def sheet(font: str) -> Image:
    """The page itself, BGR."""
    page = texture(np.random.default_rng(SEED), HEIGHT, WIDTH, (243, 246, 247), 2)
    cv2.rectangle(page, (60, 518), (1140, 592), (112, 62, 28), -1)
    cv2.line(page, (70, 206), (1130, 206), (170, 160, 150), 2)
    for line in LINES:
        end = line.x + line_width(line.text, line.size, font)
        if end > WIDTH - 40:
            raise SystemExit(f"{line.text!r} runs over the edge ({end:.0f}).")
        write_line(page, line, font)
    stamp = np.array([[782, 694], [1146, 636], [1158, 714], [794, 772]])
    cv2.polylines(page, [stamp], True, RED, 4, cv2.LINE_AA)
    return page


def main(font: str) -> None:
    picture = photograph(
        sheet(font), np.random.default_rng(SEED), margin=0.045, tilt=0.014, shade=0.3
    )
    ASSETS.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    data.tofile(ASSETS / "page.jpg")
    (ASSETS / "page.txt").write_text("".join(f"{line.text}\n" for line in LINES), "utf-8")
    print(f"{ASSETS / 'page.jpg'}: {len(data)} bytes, {len(LINES)} lines")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
