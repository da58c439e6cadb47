"""A short card for a model of one's own: written, edited, used in place of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.zoo import catalogue

TEXT = (1, 6)


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    """Two inputs of int64: rows of a table, weighted by a mask, summed."""
    table = np.random.default_rng(3).standard_normal((11, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["weight"]),
        helper.make_node("Mul", ["rows", "weight"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 6]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, ["n", 6]),
        ],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "My Embedding.onnx"
    onnx.save(model, path)
    return path


def new(model: Path, card: Path, *options: str) -> Path:
    assert main(["card", "new", str(model), "-o", str(card), *options]) == 0
    return card


def edited(card: Path, **changes: object) -> Path:
    """The card as somebody would leave it who changed some keys."""
    card.write_text(yaml.safe_dump(yaml.safe_load(card.read_text()) | changes))
    return card


def same(model: Path, card: Path) -> None:
    bare, by_card = resolve(str(model)), resolve(str(card))
    assert by_card.contract == bare.contract
    assert by_card.graph() == bare.graph()
    assert (by_card.dtypes, by_card.algorithm) == (bare.dtypes, bare.algorithm)
    assert by_card.source.sha256 == bare.source.sha256


@pytest.mark.parametrize(
    "name",
    [
        "models/yolov8n.onnx",
        "models/mobilenetv2.onnx",
        "models/yolox_nano.onnx",
        "cases/models/unet_four_logits.onnx",
        "cases/models/text_embedding_three_int64.onnx",
        "cases/models/superres_rgb.onnx",
        "cases/models/two_pictures.onnx",
    ],
)
def test_a_new_card_says_what_the_bare_file_does(name: str, assets: Path, tmp_path: Path) -> None:
    model = assets / name
    if not model.is_file():
        pytest.skip(f"{model} is not there")
    same(model, new(model, tmp_path / "mine.yaml"))


def test_a_card_of_whole_numbers_runs_and_may_be_int8(embedding: Path, tmp_path: Path) -> None:
    card = new(embedding, tmp_path / "mine.yaml")
    same(embedding, card)
    ids, mask = np.array([[1, 2, 3, 4, 5, 6]]), np.array([[1, 0, 1, 0, 1, 1]])
    table = numpy_helper.to_array(onnx.load(embedding).graph.initializer[0])
    with rkzoo.load(card) as model:
        answer = model({"ids": ids, "mask": mask})
    expected = (table[ids[0]] * mask[0][:, None]).sum(0)
    np.testing.assert_allclose(answer.prediction["sum"][0], expected, rtol=1e-5)
    assert resolve(str(card)).dtypes == ("int8", "fp16")


def test_the_file_is_found_from_the_cards_folder(
    embedding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = new(embedding, tmp_path / "mine.yaml")
    assert yaml.safe_load(card.read_text())["file"] == "models/My Embedding.onnx"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resolve("../mine.yaml").source.card == str(Path("../mine.yaml").absolute())
    embedding.unlink()
    with pytest.raises(RkzooError, match="is missing"):
        resolve("../mine.yaml")


def test_what_is_edited_counts(embedding: Path, tmp_path: Path) -> None:
    card = new(embedding, tmp_path / "mine.yaml", "--shape", "ids=3,6", "--shape", "mask=3,6")
    assert [one.shape for one in resolve(str(card)).contract.others] == [(3, 6), (3, 6)]
    edited(card, outputs=["rows"], arrays=[{"name": "ids", "shape": [2, 6], "dtype": "int64"}])
    found = resolve(str(card))
    assert [one.name for one in found.contract.others] == ["ids"]
    graph = found.graph().graph
    assert [info.name for info in graph.output] == ["rows"]
    assert [node.op_type for node in graph.node] == ["Gather"]
    with pytest.raises(RkzooError, match="no tensor nowhere"):
        resolve(str(edited(card, outputs=["nowhere"])))


def test_odd_names_are_kept(embedding: Path, tmp_path: Path) -> None:
    odd = embedding.with_name("a: [b]\nhead: {kind: x} # 'c' \"ü😀.onnx")
    embedding.rename(odd)
    card = new(odd, tmp_path / "mine.yaml")
    same(odd, card)
    assert yaml.safe_load(card.read_text())["head"] == {"kind": "tensors"}


def test_labels_that_yaml_would_read_as_something_else(assets: Path, tmp_path: Path) -> None:
    names = ["yes", "no", "1", "1.5", "null", "~", "a: b", "[c]", "# d", "é", "'", '"', "😀"]
    names += [f"{number}" for number in range(80 - len(names))]
    (tmp_path / "names.txt").write_text("\n".join(names))
    model = assets / "models" / "yolov8n.onnx"
    card = new(model, tmp_path / "mine.yaml", "--labels", str(tmp_path / "names.txt"))
    assert resolve(str(card)).contract.labels == tuple(names)


def test_inspect_takes_a_card(embedding: Path, tmp_path: Path) -> None:
    card = new(embedding, tmp_path / "mine.yaml", "--shape", "ids=3,6", "--shape", "mask=3,6")
    found = rkzoo.inspect(card)
    assert found.file == embedding
    assert found.contract == resolve(str(card)).contract
    assert found.next is not None
    assert str(card) in found.next


def test_edited_labels_and_colours_come_before_the_files(assets: Path, tmp_path: Path) -> None:
    model = assets / "models" / "yolov8n.onnx"
    card = new(model, tmp_path / "mine.yaml")
    data = yaml.safe_load(card.read_text())
    names = [f"thing {number}" for number in range(80)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    edited(card, labels="names.txt", input=data["input"] | {"color": "BGR", "fit": "stretch"})
    contract = resolve(str(card)).contract
    assert contract.labels == tuple(names)
    assert (contract.input.color, contract.input.fit) == ("BGR", "stretch")
    assert isinstance(contract.head, DetectHead)
    raw = resolve(str(edited(card, head={"kind": "tensors"}, task="tensors"))).contract
    assert isinstance(raw.head, TensorsHead)
    assert raw.input == contract.input


def test_the_shortest_card_is_three_lines(embedding: Path, tmp_path: Path) -> None:
    card = tmp_path / "short.yaml"
    card.write_text("file: models/My Embedding.onnx\ntask: tensors\n")
    same(embedding, card)


def test_a_picture_that_the_model_does_not_take_is_refused(embedding: Path, tmp_path: Path) -> None:
    card = new(embedding, tmp_path / "mine.yaml")
    data = yaml.safe_load(card.read_text())
    data.pop("arrays")
    card.write_text(yaml.safe_dump(data | {"input": {"size": [32, 32]}}))
    with pytest.raises(RkzooError, match="describes a picture of 3 channels") as caught:
        resolve(str(card))
    assert "arrays" in caught.value.fix


def test_calibration_samples_may_lie_beside_the_card(embedding: Path, tmp_path: Path) -> None:
    from rkzoo.progress import SILENT
    from rkzoo.workflow.compile.prepare import prepare

    card = new(embedding, tmp_path / "mine.yaml")
    (tmp_path / "samples").mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        drawn = {name: random.integers(0, 2, TEXT) for name in ("ids", "mask")}
        np.savez(tmp_path / "samples" / f"{number}.npz", **drawn)
    edited(card, calibration={"folder": "samples"})
    prepared = prepare(resolve(str(card)), ["rk3588"], "int8", None, None, SILENT)
    assert [Path(name).name for name in prepared.calibration.files] == ["0.npz", "1.npz", "2.npz"]


def test_a_card_that_is_there_is_not_overwritten(
    embedding: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = new(embedding, tmp_path / "mine.yaml")
    text = card.read_text()
    assert main(["card", "new", str(embedding), "-o", str(card)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert card.read_text() == text
    assert main(["card", "new", str(embedding), "-o", str(tmp_path / "My Card.yaml")]) == 2
    assert "my-card.yaml" in capsys.readouterr().err
    assert main(["card", "new", "yolov8n"]) == 2
    assert "has a card already" in capsys.readouterr().err


def test_a_broken_card_stops_only_who_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("name: broken\ntsk: [\n")
    monkeypatch.setenv("RKZOO_CARDS", str(tmp_path))
    assert "broken" not in {card.name for card in catalogue.cards()}
    assert main(["list", "--task", "depth"]) == 0
    told = capsys.readouterr()
    assert "midas-v21-small" in told.out
    assert str(tmp_path / "broken.yaml") in told.err
    assert main(["info", "midas-v21-small"]) == 0
    assert main(["info", "broken"]) == 2


def test_a_size_of_the_card_closes_a_free_picture(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Neg", ["y"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w_"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "free.onnx")
    card = tmp_path / "free.yaml"
    card.write_text(
        "file: free.onnx\ntask: tensors\ninput: {size: [40, 24], color: BGR, fit: letterbox}\n"
    )
    contract = resolve(str(card)).contract
    assert (contract.input.size, contract.input.color) == ((40, 24), "BGR")
    assert resolve(str(card), Request(size=(8, 16))).contract.input.size == (8, 16)
