"""SenseVoice by its structure: FunASR's own export, with random weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import CtcSpeechHead
from rkzoo.graph.families.plain import with_shapes
from rkzoo.graph.families.recognition import Recognition, UnknownHead
from rkzoo.graph.families.registry import recognise_arranged
from rkzoo.graph.families.speech import _head
from rkzoo.graph.onnx.view import run_whole
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.speech.ctc import CtcRecognizer
from upstream_networks import network

ROWS = 24
kaldi = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
LABELS = ("<blank>", *(f"▁w{i}" if i % 3 else f"p{i}" for i in range(1, 25055)))


@pytest.fixture(scope="module")
def original() -> onnx.ModelProto:
    return network("sensevoice-small")


@pytest.fixture(scope="module")
def arranged(original: onnx.ModelProto) -> tuple[onnx.ModelProto, Recognition]:
    return recognise_arranged(with_shapes(original, {"speech": (1, ROWS, 560)}))


def features(samples: np.ndarray) -> np.ndarray:
    """Kaldi's own, stacked by a loop."""
    options = kaldi.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    online = kaldi.OnlineFbank(options)
    online.accept_waveform(16000, (samples * 32768).tolist())
    online.input_finished()
    frames = [online.get_frame(i) for i in range(online.num_frames_ready)]
    rows = [
        np.concatenate([frames[min(max(at - 3 + i, 0), len(frames) - 1)] for i in range(7)])
        for at in range(0, len(frames), 6)
    ]
    return np.stack(rows)


def test_its_graph_is_recognised_and_proved(
    arranged: tuple[onnx.ModelProto, Recognition],
) -> None:
    graph, recognition = arranged
    assert [i.name for i in graph.graph.input] == ["speech", "mask", "language", "form"]
    assert len(graph.graph.output) == 1
    kinds = {node.op_type for node in graph.graph.node}
    assert kinds.isdisjoint({"Where", "Less", "Equal", "Range", "Shape"})
    assert recognition.difference is not None
    assert recognition.difference() < 1e-4
    head = recognition.contract.head
    assert isinstance(head, CtcSpeechHead)
    assert (head.leading, head.hop, head.languages["en"]) == (4, 960, 4)


def test_a_sound_is_read_as_the_uncut_graph_reads_it(
    original: onnx.ModelProto, arranged: tuple[onnx.ModelProto, Recognition]
) -> None:
    """The file's own graph in ONNX Runtime on Kaldi's features, decoded as FunASR does: repeats
    dropped, then blanks."""
    random = np.random.default_rng(3)
    samples = (0.1 * random.normal(size=15000)).astype(np.float32)
    shift, scale = random.normal(-13, 1, 560), random.normal(0.2, 0.01, 560)
    rows = ((features(samples) + shift) * scale).astype(np.float32)
    assert len(rows) < ROWS
    whole = run_whole(
        original,
        {
            "speech": rows[None],
            "speech_lengths": np.array([len(rows)], np.int32),
            "language": np.array([4], np.int32),
            "textnorm": np.array([14], np.int32),
        },
    )[0]
    steps = whole[0].argmax(axis=1).tolist()
    wanted = ""
    for place, at in enumerate(steps[4:]):
        if at and (place == 0 or at != steps[4 + place - 1]):
            wanted += LABELS[at].replace("▁", " ")
    graph, recognition = arranged
    contract = recognition.contract
    assert isinstance(contract.head, CtcSpeechHead)
    head = contract.head.with_statistics(tuple(shift), tuple(scale))
    contract = type(contract)(
        family=contract.family, head=head, others=contract.others, labels=LABELS
    )
    reader = CtcRecognizer(contract, OnnxSession(graph.SerializeToString()), "en")
    found = reader(Sound(samples, 16000))
    assert found.text == wanted.strip()
    assert len(found.text) > 20
    assert [found.language, found.emotion, found.event] == [LABELS[i] for i in steps[:3]]


def test_another_network_with_such_inputs_is_left_alone(original: onnx.ModelProto) -> None:
    """The number of frames goes into the numbers themselves."""
    other = onnx.ModelProto()
    other.CopyFrom(original)
    graph = other.graph
    less = next(i for i, node in enumerate(graph.node) if node.op_type == "Less")
    graph.node[less].op_type = "LessOrEqual"
    with pytest.raises(UnknownHead):
        recognise_arranged(with_shapes(other, {"speech": (1, ROWS, 560)}))


def test_what_sherpa_onnx_writes_into_a_file_is_read() -> None:
    notes = {
        "neg_mean": ",".join(["-8.5"] * 560),
        "inv_stddev": ",".join(["0.25"] * 560),
        "lang_auto": "0",
        "lang_zh": "3",
        "with_itn": "24",
        "url": "x",
    }
    head = _head(notes, 4)
    assert head.features is not None
    assert (head.features.shift[0], head.features.scale[559]) == (-8.5, 0.25)
    assert (head.languages, head.form) == ({"auto": 0, "zh": 3}, 24)
    for damaged in ("1,2", "", "x" * 9, ",".join(["nan"] * 560)):
        features = _head(notes | {"neg_mean": damaged}, 4).features
        assert features is not None
        assert features.shift == ()
