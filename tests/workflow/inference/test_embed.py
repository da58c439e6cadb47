"""Pictures and words compared: a small CLIP with the interface of the published one, held to
formulas; on ONNX Runtime, converted and simulated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rkzoo
from rkzoo.cli.main import main
from rkzoo.tasks.embed.clip import ClipEmbedder
from rkzoo.vision.image import write
from tiny_clip import WIDTH, meant, seen, write_cards

WORDS = ("a red bus", "a dog", "the sea at night")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_cards(folder)
    return folder


@pytest.fixture(autouse=True)
def known(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_CARDS", str(cards))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(2)
    shapes = ((90, 61, 3), (40, 200, 3), (32, 32, 3), (500, 33, 3), (20, 25, 3))
    paths = [tmp_path / "in" / f"{name}.png" for name in ("a", "b", "c", "d", "ü")]
    for path, shape in zip(paths, shapes, strict=True):
        low = random.integers(0, 120, 3)
        write(path, random.integers(low, low + 130, shape).astype(np.uint8))
    return paths


def probabilities(path: Path, cards: Path) -> dict[str, float]:
    cosines = [seen(path) @ meant(words, cards) for words in WORDS]
    powers = np.exp(100 * (np.array(cosines) - max(cosines)))
    return dict(zip(WORDS, powers / powers.sum(), strict=True))


def test_words_are_weighed_as_the_formula_says(
    cards: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    said = [part for words in WORDS for part in ("--prompt", words)]
    assert main(["run", "tiny-clip", *map(str, pictures), *said, "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    for image, path in zip(images, pictures, strict=True):
        wanted = probabilities(path, cards)
        found = {record["label"]: record["score"] for record in image["results"]}
        assert found == pytest.approx(wanted, abs=2e-3)
        assert list(found) == sorted(WORDS, key=lambda words: -wanted[words])
    with rkzoo.load("tiny-clip", prompts=WORDS) as model:
        assert model(pictures[0]).to_json()["results"] == images[0]["results"]


def test_a_folder_is_searched_by_words(
    cards: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "out" / "sheet.png"
    command = ["run", "tiny-clip", str(pictures[0].parent), "--search", WORDS[0], "--json"]
    assert main([*command, "-o", str(sheet)]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    every = {str(path): seen(path) @ meant(WORDS[0], cards) for path in pictures}
    wanted = {name: cosine for name, cosine in every.items() if cosine > ClipEmbedder.near}
    assert 1 < len(wanted) < len(every)
    found = {record["file"]: record["cosine"] for record in results}
    assert found == pytest.approx(wanted, abs=2e-4)
    assert list(found) == sorted(wanted, key=lambda name: -wanted[name])
    assert Image.open(sheet).size[0] > 4 * 240
    # The best comes first on the sheet: a picture of its own size, scaled to the sheet's side.
    best = Path(results[0]["file"])
    corner = np.asarray(Image.open(sheet).convert("RGB"))[8 : 8 + 240, 8 : 8 + 240]
    middle = np.asarray(Image.open(best).convert("RGB")).mean(axis=(0, 1))
    inside = corner[corner.min(axis=2) < 250]
    np.testing.assert_allclose(inside.mean(axis=0), middle, atol=8)


def test_what_cannot_be_read_is_left_out_and_named(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures[1].write_bytes(b"no picture")
    command = ["run", "tiny-clip", str(pictures[0].parent), "--search", WORDS[0]]
    assert main([*command, "-o", str(tmp_path / "out"), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [one["file"] for one in document["failed"]] == [str(pictures[1])]
    assert document["compared"] == 4
    assert str(pictures[1]) not in {one["file"] for one in document["results"]}
    assert main(["run", "tiny-clip", str(pictures[1]), "--search", WORDS[0]]) == 2


def test_nothing_is_found_where_nothing_is_close(
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ClipEmbedder, "near", 1.1)
    command = ["run", "tiny-clip", str(pictures[0].parent), "--search", WORDS[0]]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert "nothing is close: none of 5" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_whatever_of_the_cache_is_damaged_the_same_is_found(
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    command = ["run", "tiny-clip", str(pictures[0].parent), "--search", WORDS[0], "--json"]
    assert main(command) == 0
    first = capsys.readouterr().out
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file() and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2 : len(data) // 2 + 14] = b"\xa5" * 14
            path.write_bytes(data)
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.out == first
    assert "5 of the embeddings kept in" in captured.err
    assert main(command) == 0
    assert "damaged" not in capsys.readouterr().err


def test_embeddings_are_kept_and_made_anew_for_what_changed(
    cards: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rkzoo.workflow.apps.search import search
    from rkzoo.workflow.request.request import Request

    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    first = search("tiny-clip", pictures, WORDS[0], Request())
    again = search("tiny-clip", pictures, WORDS[1], Request())
    assert (first.kept, again.kept) == (0, 5)
    pictures[2].write_bytes(pictures[0].read_bytes())
    (damaged, *_) = sorted((tmp_path / "cache" / "embeddings").rglob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:40])
    monkeypatch.setattr(ClipEmbedder, "near", -1.0)
    changed = search("tiny-clip", pictures, WORDS[1], Request())
    assert changed.kept in (3, 4)  # the damaged one may be that of the picture that went
    cosine = {hit.file: hit.cosine for hit in changed.hits}
    assert cosine[pictures[2]] == cosine[pictures[0]]
    assert cosine[pictures[1]] == pytest.approx(
        seen(pictures[1]) @ meant(WORDS[1], cards), abs=2e-4
    )


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (["--prompt", "a dog"], "nothing to choose from"),
        ([], "nothing to choose from"),
        (["--prompt", "abcdefgh " * 3, "--prompt", "b"], "are too long"),
        (["--search", "abcdefgh " * 3], "are too long"),
        (["--search", " "], "nothing to search for"),
        (["--search", "a", "--prompt", "b"], "do not go together"),
        (["--prompt", "a", "--prompt", "b", "--text-model", "x.onnx"], "do not go with"),
        (["--prompt", "a", "--prompt", "a"], "given twice"),
    ],
)
def test_what_cannot_be_asked_is_told(
    pictures: list[Path], said: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "tiny-clip", str(pictures[0]), *said]) != 0
    assert what in capsys.readouterr().err


def test_words_are_scored_on_folders_of_pictures(
    cards: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a classifier whose classes are the words."""
    said = [part for words in WORDS for part in ("--prompt", words)]
    for number, path in enumerate(pictures):
        folder = tmp_path / "data" / WORDS[number % len(WORDS)]
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    found = sorted((tmp_path / "data").rglob("*.png"))
    odds = [probabilities(path, cards) for path in found]
    named = [max(WORDS, key=one.__getitem__) for one in odds]
    right = [name == path.parent.name for name, path in zip(named, found, strict=True)]
    command = ["eval", "tiny-clip", "--data", str(tmp_path / "data"), *said, "--json", "--fresh"]
    assert main(command) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    top = next(one for one in metrics if one["name"] == "top-1")
    assert top["value"] == pytest.approx(100 * sum(right) / len(right))


def test_a_part_alone_gives_plain_tensors() -> None:
    with rkzoo.load("tiny-text") as part:
        alone = part({"input_ids": np.zeros((1, 12), np.int64)}).prediction
    assert alone["text_embeds"].shape == (1, WIDTH)


@pytest.mark.toolkit
def test_converted_and_simulated_it_says_the_same(
    cards: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "tiny-clip", "--soc", "rk3588", "-o", str(tmp_path)]) == 0
    said = [part for words in WORDS for part in ("--prompt", words)]
    capsys.readouterr()
    joined = str(tmp_path / "tiny-clip-rk3588.json")
    asked = ["--runtime", "simulator", "--json"]
    assert main(["run", joined, str(pictures[0]), str(pictures[1]), *said, *asked]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runtime"] == "simulator"
    for image, path in zip(document["images"], pictures, strict=False):
        found = {record["label"]: record["score"] for record in image["results"]}
        # Half precision: a cosine is off by a thousandth, times 100 in the softmax.
        assert found == pytest.approx(probabilities(path, cards), abs=0.06)
