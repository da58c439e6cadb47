"""Cards of voices and sounds as the user has them: parts on disk, real weights where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.accuracy.metric import word_error_rate
from rkzoo.audio.sound import Sound, read
from rkzoo.cli.main import main
from rkzoo.contract.audio import VoiceHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import TaskParts
from rkzoo.workflow.compile.convert import convert
from rkzoo.workflow.inference.load import open_model
from rkzoo.workflow.request.request import Request
from rkzoo.zoo import catalogue
from rkzoo.zoo.store import cached

INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def saved(path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[int]]],
          outputs: list[str], constants: dict[str, np.ndarray]) -> None:  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture
def mms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped cards of the MMS voice on graphs with its interface: every symbol lasts two
    frames, and sounds as its number over 64."""
    saved(
        tmp_path / "encoder.onnx",
        [
            helper.make_node("Cast", ["attention_mask"], ["m"], to=FLOAT),
            helper.make_node("Unsqueeze", ["m", "one"], ["input_padding_mask"]),
            helper.make_node("Mul", ["input_padding_mask", "log2"], ["log_duration"]),
            helper.make_node("Cast", ["input_ids"], ["f"], to=FLOAT),
            helper.make_node("Unsqueeze", ["f", "two"], ["g"]),
            helper.make_node("Mul", ["g", "ones"], ["prior_means"]),
            helper.make_node("Mul", ["prior_means", "zero"], ["prior_log_variances"]),
        ],
        {"input_ids": (INT, [1, 200]), "attention_mask": (INT, [1, 200])},
        ["log_duration", "input_padding_mask", "prior_means", "prior_log_variances"],
        {
            "one": np.array([1]),
            "two": np.array([2]),
            "log2": np.float32(np.log(2) - 1e-3),
            "ones": np.ones((1, 1, 192), np.float32),
            "zero": np.float32(0),
        },
    )
    saved(
        tmp_path / "decoder.onnx",
        [
            helper.make_node("Squeeze", ["attn", "one"], ["a"]),
            helper.make_node("Add", ["prior_means", "prior_log_variances"], ["z"]),
            helper.make_node("MatMul", ["a", "z"], ["b"]),
            helper.make_node("Transpose", ["output_padding_mask"], ["there"], perm=[0, 2, 1]),
            helper.make_node("Mul", ["b", "there"], ["c"]),
            helper.make_node("ReduceMean", ["c"], ["d"], axes=[2], keepdims=1),
            helper.make_node("Mul", ["d", "wide"], ["e"]),
            helper.make_node("Reshape", ["e", "flat"], ["waveform"]),
        ],
        {
            "attn": (FLOAT, [1, 1, 400, 200]),
            "output_padding_mask": (FLOAT, [1, 1, 400]),
            "prior_means": (FLOAT, [1, 200, 192]),
            "prior_log_variances": (FLOAT, [1, 200, 192]),
        },
        ["waveform"],
        {
            "one": np.array([1]),
            "wide": np.full((1, 1, 256), 1 / 64, np.float32),
            "flat": np.array([1, 102400]),
        },
    )
    for part in ("encoder", "decoder"):
        text = (catalogue.CARDS / f"mms-tts-eng-{part}.yaml").read_text("utf-8")
        lines = [line for line in text.splitlines() if "https://ftrg" not in line]
        where = next(n for n, line in enumerate(lines) if line == "sources:")
        lines.insert(where + 1, f"  - url: file:{part}.onnx")
        (tmp_path / f"mms-tts-eng-{part}.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    monkeypatch.setenv("RKZOO_CARDS", str(tmp_path))
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path


VOCABULARY = "k'zyudhesw–3cp-1jmi flo0bra42n_xvtq56g"


def test_a_long_text_is_read_to_its_last_letter(mms: Path) -> None:
    text = " ".join(["the quick brown fox jumps over the lazy dog"] * 8)
    (mms / "t.txt").write_text(f"{text}, 3 times.", "utf-8")
    assert main(["run", "mms-tts-eng", str(mms / "t.txt"), "-o", str(mms / "out.wav")]) == 0
    sound = read(mms / "out.wav")
    assert sound.rate == 16000
    values = np.rint(sound.samples * 64).astype(int)
    changes = [b for a, b in zip([0, *values], values, strict=False) if a != b and b]
    # k is symbol 0, the blank itself, in the authors' table: it cannot be heard here.
    said = f"{text} three times".replace("k", "")
    assert "".join(VOCABULARY[n] for n in changes) == said
    assert len(VOCABULARY) == 38


def test_what_a_voice_cannot_do_is_said(mms: Path) -> None:
    for request in (Request(speed=0.0), Request(language="fr")):
        with pytest.raises(RkzooError, match=r"speed|language"):
            open_model("mms-tts-eng", request)
    with open_model("mms-tts-eng", Request()) as model, pytest.raises(RkzooError, match="nothing"):
        model("你好")


def has(name: str) -> None:
    if not cached(catalogue.card(name)):
        pytest.skip(f"the weights of {name} are not in the cache (rkzoo fetch {name})")


def test_a_part_for_the_processor_is_not_converted(tmp_path: Path) -> None:
    has("piper-joe-encoder")
    with pytest.raises(RkzooError, match="stays on the processor"):
        convert("piper-joe-encoder", "rk3588", output=tmp_path)


def test_speech_is_found_in_speech_and_none_in_the_sounds_of_animals(assets: Path) -> None:
    has("silero-vad")
    audio = assets / "data/audio"
    with open_model("silero-vad", Request()) as model:
        (one,) = model(audio / "speech_en.wav").prediction.stretches
        assert not len(model(audio / "animal.wav").prediction)
        sound = read(audio / "speech_en.wav")
        apart = np.concatenate([sound.samples, np.zeros(32000, np.float32), sound.samples])
        first, second = model.answer(Sound(apart, 16000))[0].stretches
    assert 0.3 < one.start < 0.7
    assert 5.2 < one.end < 5.8
    assert first.start == pytest.approx(one.start, abs=0.05)
    assert second.start - first.start == pytest.approx(sound.seconds + 2, abs=0.1)


def test_a_dictionary_is_read_once_for_all_speeds_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 55 MB, and a server opens a voice for each speed that it is asked for."""
    from rkzoo.tasks.voice import open as opening

    reads: list[str] = []

    def read_lexicon(path: Path) -> dict[str, list[str]]:
        reads.append(path.read_text())
        return {}

    monkeypatch.setattr(opening, "read_lexicon", read_lexicon)
    monkeypatch.setattr(opening, "GraphemeToPhoneme", lambda path: None)
    files = {f"encoder.{name}": tmp_path / name for name in ("lexicon", "letters-to-sounds")}
    described = tmp_path / "v.json"
    described.write_text('{"audio": {"sample_rate": 22050}, "phoneme_id_map": {}}')
    for lexicon in ("one", "one", "another"):
        for path in files.values():
            if not path.exists() or path.read_text() != lexicon:
                path.write_text(lexicon)
        parts = TaskParts(VoiceHead(rate=22050), {}, files | {"encoder.phonemes": described})
        opening._speller(parts.head, parts)
    assert reads == ["one", "another"]


def test_a_voice_with_a_damaged_description_is_refused(tmp_path: Path) -> None:
    from rkzoo.tasks.voice.open import _described

    for text in ("{", json.dumps({"audio": {}}), json.dumps([1])):
        (tmp_path / "v.json").write_text(text)
        with pytest.raises(RkzooError, match="does not describe a voice"):
            _described(tmp_path / "v.json")


@pytest.mark.network
def test_piper_says_the_same_twice_and_whisper_understands_it(tmp_path: Path) -> None:
    """Half a minute: the only judge of a voice that has ears."""
    text = (
        "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel."
    )
    with open_model("piper-joe", Request()) as model:
        once, again = model("We are glad."), model("We are glad. We are glad 你.")
        said = model(text).prediction.sound
    samples, both = once.prediction.sound.samples, again.prediction.sound.samples
    gap = round(0.2 * 22050)
    np.testing.assert_array_equal(both[: len(samples)], samples)
    np.testing.assert_array_equal(both[len(samples) + gap :], samples)
    assert 0.5 < once.prediction.sound.seconds < 1.5
    assert [one.unspoken for one in again.prediction.sentences] == ["", "你"]
    once.save(tmp_path / "x.wav")
    assert read(tmp_path / "x.wav").seconds == pytest.approx(once.prediction.sound.seconds)
    with open_model("whisper-base", Request()) as ear:
        lines = ear.answer(said)[0].to_json()
    heard = " ".join(str(line["text"]).strip() for line in lines)
    assert word_error_rate([(text, heard)]) <= 0.05
