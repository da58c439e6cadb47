"""A page's language brings the reader that knows its letters."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.workflow.request.text_recognizer import reader_for
from rkzoo.zoo.fetch import asset

pytestmark = pytest.mark.network

LINES = {
    "de": "Größe und Übergröße: süße Möhren",
    "fr": "Où est le cœur de l'été, à Noël?",
    "es": "El niño comió jalapeños en el jardín",
}


def test_the_usual_reader_stays_where_it_knows_the_letters() -> None:
    assert reader_for("en", "ppocr-v4-rec") == "ppocr-v4-rec"
    assert reader_for("de", "ppocr-v5-rec") == "ppocr-v5-rec"
    assert reader_for("fr", "ppocr-v5-rec") == "ppocr-v6-rec"


def test_a_language_that_none_reads_is_told_with_those_that_are_read() -> None:
    with pytest.raises(RkzooError, match="No model of the zoo reads 'ru'") as caught:
        reader_for("ru", "ppocr-v4-rec")
    assert " pl," in caught.value.fix


def test_accents_are_read() -> None:
    font = ImageFont.truetype(str(asset("font-cjk")), 34)
    picture = Image.new("RGB", (900, 260), "white")
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(LINES.values()):
        draw.text((30, 30 + 70 * row), line, fill=(20, 20, 30), font=font)
    with rkzoo.load("ppocr", language="fr") as model:
        found = model(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])).prediction
    assert list(found.texts) == list(LINES.values())  # type: ignore[attr-defined]
