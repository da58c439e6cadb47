"""Cards: the shipped ones hold, a wrong one is named with file, key and cure."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.text import TextDetHead
from rkzoo.errors import RkzooError
from rkzoo.zoo import catalogue, labels, loading
from rkzoo.zoo.fetch import weights
from rkzoo.zoo.loading import read_card
from rkzoo.zoo.schema import Card, LabelsFrom
from rkzoo.zoo.store import cached, size

SHIPPED = sorted(catalogue.CARDS.glob("*.yaml"))
FAMILIES = sorted(catalogue.FAMILIES.glob("*.yaml"))
SHA = "ab" * 32
GOOD = f"""
name: mine
title: My own
task: detect
licence: {{name: MIT}}
sources:
  - {{url: 'https://example.org/a.onnx', sha256: {SHA}, size: 10}}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> Card:
    return read_card(path, catalogue.FAMILIES)


def fault(folder: Path, text: str) -> RkzooError:
    path = write(folder, text)
    with pytest.raises(RkzooError) as caught:
        read(path)
    assert str(path) in caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_card_holds(path: Path) -> None:
    card = catalogue.card(path.stem)
    assert card.name == path.stem
    assert card.licence.url.startswith("https://")
    assert card.origin.startswith("https://")
    for mirrors in (card.sources, *card.files.values()):
        assert len({source.sha256 for source in mirrors}) <= 1, "mirrors hold the same file"
        for source in mirrors:
            assert not source.url.startswith("file:")
            # Nobody has seen what lies at an address without a hash.
            assert source.sha256 or source.unverified
    if isinstance(card.labels, str):
        assert labels.label_set(card.labels)
    if "int8" in card.dtypes and not card.pipeline and card.task != "asset":
        assert card.calibration.pictures


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_a_family_is_used_and_its_keys_are_valid(path: Path) -> None:
    used = [file for file in SHIPPED if f"base: {path.stem}\n" in file.read_text("utf-8")]
    assert used
    merged = loading.merged(loading.read_mapping(path), loading.read_mapping(used[0]))
    assert loading.as_card(merged, path).base == path.stem


@pytest.mark.parametrize("name", ["ppocr-v4-det", "ppocr-v5-det"])
def test_text_detection_is_fed_as_upstream_feeds_it(name: str) -> None:
    card = catalogue.card(name)
    assert card.input is not None
    assert card.input.color == "BGR"
    assert card.input.mean == (123.675, 116.28, 103.53)
    assert card.input.std == (58.395, 57.12, 57.375)
    assert isinstance(card.head, TextDetHead)


def test_a_yolo_costs_one_short_yaml() -> None:
    for path in (*SHIPPED, *FAMILIES):
        if "yolo" in path.stem:
            assert len(path.read_text("utf-8").splitlines()) <= 80


def test_a_model_published_for_pytorch_only_says_how_to_export_it(tmp_path: Path) -> None:
    card = catalogue.card("yolov9t")
    with pytest.raises(RkzooError) as caught:
        weights(card)
    assert card.export in caught.value.fix
    assert not cached(card)
    assert size(card) is None
    assert "sources, an export" in fault(tmp_path, GOOD + "export: make it\n").why


def test_a_file_that_several_parts_are_made_of_counts_once() -> None:
    parts = catalogue.members(catalogue.card("piper-joe")).values()
    assert len({part.sources for part in parts}) == 1 < len(parts)
    urls = {one.url: one.size for part in parts for one in part.sources}
    urls |= {mirrors[0].url: mirrors[0].size for p in parts for mirrors in p.files.values()}
    assert size(catalogue.card("piper-joe")) == sum(filter(None, urls.values()))


def test_labels_of_coco() -> None:
    names = labels.label_set("coco80")
    assert len(names) == len(set(names)) == 80
    assert (names[0], names[5], names[79]) == ("person", "bus", "toothbrush")
    with pytest.raises(RkzooError, match="Did you mean coco80"):
        labels.label_set("coco-80")


def test_a_good_card_is_read(tmp_path: Path) -> None:
    card = read(write(tmp_path, GOOD))
    assert card.title == "My own"
    assert card.dtype == "int8"
    assert card.sources[0].size == 10


def test_a_family_is_inherited_and_overridden(tmp_path: Path) -> None:
    text = GOOD + "base: yolov8\nlabels: [cat, dog]\ninput: {size: [320, 416]}\n"
    card = read(write(tmp_path, text))
    assert card.family == "yolov8"
    assert card.labels == ("cat", "dog")
    assert card.licence.name == "MIT"
    assert card.input is not None
    assert (card.input.size, card.input.pad, card.input.std) == ((320, 416), 114, (255.0,) * 3)


def test_a_head_of_another_kind_replaces_the_familys(tmp_path: Path) -> None:
    text = GOOD + "base: ppocr-det\nhead: {kind: detect, outputs: [], classes: 2}\n"
    assert isinstance(read(write(tmp_path, text)).head, DetectHead)


def test_a_family_of_ones_own_lies_beside_the_card(tmp_path: Path) -> None:
    (tmp_path / "families").mkdir()
    write(tmp_path / "families", "summary: from here\n", "own.yaml")
    assert read(write(tmp_path, GOOD + "base: own\n")).summary == "from here"


@pytest.mark.parametrize("line", ["base: mine", "base: [a]", "base: 3", "base: ../cards/ppocr"])
def test_a_base_that_is_none_is_said(tmp_path: Path, line: str) -> None:
    assert "not a family" in fault(tmp_path, f"{GOOD}{line}\n").what


def test_a_family_that_inherits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "families").mkdir()
    write(tmp_path / "families", "base: own\n", "own.yaml")
    with pytest.raises(RkzooError, match="inherits from no other"):
        read(write(tmp_path, GOOD + "base: own\n"))


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        (GOOD + "titel: x\n", "titel", "title"),
        (GOOD + "calibration: {picture: x}\n", "calibration.picture", "pictures"),
        (GOOD + "input: {size: [1, 1], colour: RGB}\n", "input.colour", "color"),
        (GOOD.replace("size:", "sise:"), "sources[0].sise", "size"),
        (GOOD + "head: {kind: text-det, treshold: 0.2}\n", "head.treshold", "threshold"),
        (GOOD + "labels: {onnx_metadat: x}\n", "labels.onnx_metadat", "onnx_metadata"),
        (
            GOOD + f"files: {{keys: [{{url: 'file:x', sha256: {SHA}, siz: 3}}]}}\n",
            "files[...][0].siz",
            "size",
        ),
        (GOOD + "licence_: {name: MIT}\n", "licence_", "licence"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(
    tmp_path: Path, text: str, key: str, near: str
) -> None:
    error = fault(tmp_path, text)
    assert f"unknown key `{key}`" in error.what
    assert f"Did you mean {near}?" == error.fix
    assert near in error.why


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (
            GOOD.replace("task: detect", "task: detekt"),
            "task",
            "known: anomaly, asset, classify,",
        ),
        (GOOD.replace("size: 10", "size: ten"), "sources[0].size", "int"),
        (GOOD.replace("size: 10", "size: 0"), "sources[0].size", ">= 1"),
        (GOOD.replace("https:", "http:"), "sources[0]", "https:"),
        (GOOD.replace("https://", "https:"), "sources[0]", "https://"),
        (GOOD.replace(SHA, "AB" * 32), "sources[0]", "64"),
        (GOOD.replace(SHA, "null"), "sources[0]", "unverified"),
        (GOOD.replace("'https://example.org/a.onnx'", "'pypi:a#b'"), "sources[0]", "package=="),
        (
            GOOD.replace("'https://example.org/a.onnx'", "'pypi:a==1#a/../b'"),
            "sources[0]",
            "not go up",
        ),
        (GOOD + "dtypes: [int4]\n", "dtypes[0]", "known: fp16, int8, w4a16"),
        (GOOD + "head: {kind: text-dt}\n", "head.kind", "text-det"),
        (GOOD + "labels: 3\n", "labels", "int"),
        (GOOD + "dtypes: []\n", "whole", "dtypes"),
        (GOOD + "input: {size: [0, 3]}\n", "input.size[0]", ">= 1"),
        (GOOD + "input: {size: [3, 3], std: [0, 1, 1]}\n", "input", "std"),
        (GOOD + "pipeline: {det: x}\n", "whole", "pipeline"),
        (GOOD + "labels: {file: words}\n", "whole", "words"),
        (GOOD + "labels: {file: a, onnx_metadata: b}\n", "labels", "one of"),
        (GOOD + "files: {keys: []}\n", "whole", "source"),
        (GOOD + "notes: ['']\n", "notes[0]", "length"),
        (GOOD.replace("name: mine", "name: My Own"), "name", "lowercase letters"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    error = fault(tmp_path, text)
    assert key in error.what
    assert expected in error.why


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "lacks the key `licence`" in fault(tmp_path, GOOD.replace("licence", "#")).what
    text = GOOD.replace(f"sha256: {SHA}, ", "")
    assert "lacks the key `sources[0].sha256`" in fault(tmp_path, text).what
    assert "classify" in fault(tmp_path, GOOD.replace("task", "#")).why
    assert "named by `file`" in fault(tmp_path, GOOD.replace("licence", "#")).fix


def test_a_pipeline_of_ones_own_finds_its_parts_beside_it(tmp_path: Path) -> None:
    whole = write(tmp_path, "task: text\npipeline: {det: lines, rec: ppocr-v4-rec}\n", "page.yaml")
    with pytest.raises(RkzooError, match=r"'lines' in `pipeline\.det`") as caught:
        catalogue.card(whole)
    assert "rkzoo card new FILE" in caught.value.fix
    write(tmp_path, "task: text\nfile: lines.onnx\n", "lines.yaml")
    parts = catalogue.members(catalogue.card(whole))
    assert [part.name for part in parts.values()] == ["lines", "ppocr-v4-rec"]
    assert parts["det"].sources[0].url == f"file:{tmp_path / 'lines.onnx'}"
    assert catalogue.card(whole).licence.name


def test_a_part_that_is_a_file_is_told_what_a_part_is(tmp_path: Path) -> None:
    """Whether its path could be a name or not."""
    for file in ("lines.onnx", "../lines.onnx"):
        text = f"task: text\npipeline: {{det: {file}, rec: ppocr-v4-rec}}\n"
        with pytest.raises(RkzooError) as caught:
            catalogue.card(write(tmp_path, text, "page.yaml"))
        assert "name of a card" in caught.value.why
        assert "rkzoo card new FILE" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "title: again\n", "`title` twice"),
        (GOOD + "licence: {name: a, name: b}\n", "twice"),
        (GOOD + "input: {size: [1, 1], pad: 1, pad: 2}\n", "`pad` twice"),
        (GOOD + "notes: &n [a]\norigin: *n\n", "alias"),
        ("a: &a [*a]\n", "alias"),
        (GOOD + "<<: {title: x}\n", "plain word"),
        (GOOD + "? [a, b]\n: c\n", "plain word"),
        (GOOD + "notes: !!python/object:os.system [x]\n", "not valid yaml"),
        ("[" * 5000 + "]" * 5000, "not valid yaml"),
        ("- " * 30_000, "not valid yaml"),
        ("a: [\n", "not valid yaml"),
        ("a: 2020-99-99\n", "not valid yaml"),
        ("a: b\n---\nc: d\n", "not valid yaml"),
        ("", "not a card"),
        ("- a\n", "not a card"),
        ("x" * (loading.MAX_BYTES + 1), "too long"),
        (GOOD + "1: 2\n", "wrong"),
    ],
)
def test_yaml_that_is_no_card_is_said(tmp_path: Path, text: str, reason: str) -> None:
    error = fault(tmp_path, text)
    assert reason in error.what


def test_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"title: \xff\xfe\x00")
    with pytest.raises(RkzooError, match="not valid yaml"):
        read(path)


def _only_errors_of_ours(text: bytes, folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_bytes(text)
    with contextlib.suppress(RkzooError):
        assert isinstance(read(path), Card)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cards")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_card_is_a_card_or_one_error(folder: Path, data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from(SHIPPED)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.one_of(
                st.binary(max_size=4), st.sampled_from([b"[", b"{", b": ", b"\n", b"- ", b"&a "])
            )
        )
    _only_errors_of_ours(bytes(text), folder)


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates()
)
_VALUES = st.recursive(
    _SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(_SCALARS, x, max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_value_under_any_key_is_a_card_or_one_error(folder: Path, data: st.DataObject) -> None:
    card: dict[Any, Any] = yaml.safe_load(data.draw(st.sampled_from(SHIPPED)).read_text("utf-8"))
    keys = [field.name for field in msgspec.structs.fields(Card)]
    card[data.draw(st.sampled_from(keys) | st.text(max_size=3))] = data.draw(_VALUES)
    _only_errors_of_ours(yaml.dump(card, allow_unicode=True).encode(), folder)


def test_an_unknown_model_gets_the_nearest_names() -> None:
    with pytest.raises(RkzooError) as caught:
        catalogue.card("yolo8n")
    assert "yolov8n" in caught.value.why
    assert "rkzoo list" in caught.value.why
    assert caught.value.fix == "Did you mean yolov8n?"
    with pytest.raises(RkzooError, match="does not exist"):
        catalogue.card("nowhere/mine.yaml")


def test_cards_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "一 one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    path = write(one, GOOD)
    assert catalogue.card(path).name == "mine"
    monkeypatch.setenv("RKZOO_CARDS", f"{one}:{two}")
    assert "mine" in catalogue.names()
    write(two, GOOD.replace("My own", "Another"))
    assert catalogue.card("mine").title == "Another"
    assert len(catalogue.cards()) == len(SHIPPED) + 1
    monkeypatch.setenv("RKZOO_CARDS", str(tmp_path / "missing"))
    with pytest.raises(RkzooError, match="RKZOO_CARDS"):
        catalogue.names()


def test_an_edited_card_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert catalogue.card(path).title == "My own"
    write(tmp_path, GOOD.replace("My own", "Changed it"))
    assert catalogue.card(path).title == "Changed it"


def test_a_card_must_be_named_as_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "other.yaml")
    with pytest.raises(RkzooError, match="calls itself 'mine'"):
        catalogue.card(path)


def test_a_file_source_starts_at_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD.replace("https://example.org/a.onnx", "file:models/a.onnx"))
    monkeypatch.chdir("/")
    assert catalogue.card(path).sources[0].url == f"file:{tmp_path}/models/a.onnx"


def test_a_pipeline_of_pipelines_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = re.sub(r"sources:\n.*\n", "pipeline: {det: ppocr}\n", GOOD)
    monkeypatch.setenv("RKZOO_CARDS", str(write(tmp_path, text).parent))
    with pytest.raises(RkzooError, match=r"pipeline\.det"):
        catalogue.members(catalogue.card("mine"))


def test_number_formats_of_a_pipeline_need_every_member() -> None:
    ppocr = catalogue.card("ppocr")
    assert catalogue.dtypes_on(ppocr, "rk3588", ("int8", "fp16")) == ("int8", "fp16")
    assert catalogue.dtypes_on(ppocr, "rv1106", ("int8",)) == ()  # no reader in int8
    assert catalogue.dtypes_on(ppocr, "rk2118", ("fp16",)) == ("fp16",)


def test_labels_of_the_readers() -> None:
    v4, v5 = catalogue.card("ppocr-v4-rec").labels, catalogue.card("ppocr-v5-rec").labels
    assert v4 == LabelsFrom(onnx_metadata="character", before=("",), after=(" ",))
    assert v5 == LabelsFrom(file="characters")


def test_labels_of_imagenet_and_of_plates() -> None:
    names = labels.label_set("imagenet1k")
    assert len(names) == 1000
    assert (names[0], names[494]) == ("tench, Tinca tinca", "chime, bell, gong")
    signs = labels.label_set("plates-cn")
    assert len(signs) == len(set(signs)) == 68
    assert (signs[0], signs[31], signs[41], signs[64:]) == ("京", "0", "A", ("Z", "I", "O", "-"))


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet50-v2", "efficientnet-lite4"])
def test_classifiers_see_rgb_and_the_middle_of_the_picture(name: str) -> None:
    card = catalogue.card(name)
    assert card.input is not None
    assert (card.input.color, card.input.fit, card.input.short) == ("RGB", "crop", 256)
    assert isinstance(card.head, ClassifyHead)
    assert card.head.classes == len(labels.label_set(str(card.labels)))


def test_faces_are_seen_in_bgr_with_the_mean_in_its_order() -> None:
    card = catalogue.card("retinaface-mobile")
    assert card.input is not None
    assert (card.input.color, card.input.mean) == ("BGR", (104, 117, 123))
    assert isinstance(card.head, FaceHead)
    assert card.head.anchors == ((16, 32), (64, 128), (256, 512))
