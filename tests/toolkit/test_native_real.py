"""How the real compiler lays outputs out, for every chip and number format: against what the NPU's
own library says of such files, and whether every head could be read there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

# Heads of every kind live with the tests of the tasks.
import native_heads
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.graph.rknn.reader import SMALL, RknnFile, read
from rkzoo.soc.chips import chips, same_family, supported
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import InputPlan, Recipe
from rkzoo.workflow.compile.native_check import bind_native

pytestmark = pytest.mark.toolkit

MOST = 300
SIDE = 2
# One chip of each family: its files run on all of it.
CHIPS = [
    chip
    for number, chip in enumerate(supported())
    if not any(same_family(chip, other) for other in supported()[:number])
]
KINDS = [(chip, dtype) for chip in CHIPS for dtype in chips()[chip].dtypes]
Built = Mapping[tuple[str, str], RknnFile]


def wide_graph() -> bytes:
    """An output c1, c2 ... for each number of channels."""
    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.normal(0, 0.3, (8, 3, 3, 3)).astype("f4"), "w")]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    outputs = []
    for count in range(1, MOST + 1):
        weight = random.normal(0, 0.3, (count, 8, 1, 1)).astype("f4")
        weights.append(numpy_helper.from_array(weight, f"w{count}"))
        nodes.append(helper.make_node("Conv", ["b", f"w{count}"], [f"c{count}"]))
        outputs.append((f"c{count}", count))
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, SIDE, SIDE])
            for name, count in outputs
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def built(toolkit_env, tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("wide")
    (folder / "model.onnx").write_bytes(wide_graph())
    np.save(folder / "calibration-0.npy", np.full((1, SIDE, SIDE, 3), 128, np.uint8))
    plan = InputPlan(name="images", shape=(1, 3, SIDE, SIDE), mean=(0.0,) * 3, std=(255.0,) * 3)
    found = {}
    with ToolkitProcess(toolkit_env) as process:
        for chip, dtype in KINDS:
            recipe = Recipe(soc=chip, dtype=dtype, inputs=(plan,))
            inputs = BuildInputs(folder / "model.onnx", recipe, folder if dtype == "int8" else None)
            out = folder / f"{chip}-{dtype}.rknn"
            process.build(inputs, out)
            found[chip, dtype] = read(out)
            out.unlink()
    return found


def by_channels(file: RknnFile) -> dict[int, TensorSpec]:
    return {int(spec.name[1:]): spec for spec in file.native_outputs}


# Blocks and their width as librknnrt announces them for files of toolkit 2.5.0.
CHANNELS = (1, 16, 33, 64, 80, 85, 255)
PAIRS = (2, 2, 4, 4, 6, 6, 16)
ANNOUNCED = {
    ("rk3588", "int8"): (16, PAIRS),
    ("rk3576", "int8"): (16, PAIRS),
    ("rv1126b", "int8"): (16, PAIRS),
    ("rk3568", "int8"): (8, (2, 2, 6, 8, 10, 12, 32)),
    ("rk3562", "int8"): (16, (1, 1, 3, 4, 5, 6, 16)),
    ("rk3588", "fp16"): (8, (2, 2, 6, 8, 10, 12, 32)),
}
PAIRED = [("rk3588", 8), ("rk3576", 8), ("rv1126b", 8), ("rk3568", 4)]


@pytest.mark.parametrize(("kind", "announced"), ANNOUNCED.items())
def test_native_shapes_are_those_that_the_library_announces(built: Built, kind, announced) -> None:
    width, blocks = announced
    native = by_channels(built[kind])
    for count, wanted in zip(CHANNELS, blocks, strict=True):
        spec = native[count]
        assert (spec.layout, spec.shape) == ("NC1HWC2", (1, wanted, SIDE, SIDE, width))


@pytest.mark.parametrize(("chip", "width"), PAIRED)
def test_half_precision_comes_in_pairs_of_blocks(built: Built, chip: str, width: int) -> None:
    for count, spec in by_channels(built[chip, "fp16"]).items():
        blocks = 2 * -(-count // (2 * width))
        assert (spec.dtype, spec.shape) == ("float16", (1, blocks, SIDE, SIDE, width))


def parts(file: RknnFile, *names: str) -> RknnFile:
    """A file that has these outputs only."""
    places = [[spec.name for spec in file.outputs].index(name) for name in names]
    return replace(
        file,
        outputs=tuple(file.outputs[place] for place in places),
        native_outputs=tuple(file.native_outputs[place] for place in places),
    )


def contract(size: int, *roles: tuple[str, str], **fields: object) -> Contract:
    head = DetectHead(
        outputs=tuple(HeadOutput(name=name, role=role) for name, role in roles),  # type: ignore[arg-type]
        strides=(8,),
        **fields,  # type: ignore[arg-type]
    )
    return Contract(family="test", head=head, picture=ImageInput(size=(size, size)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_any_classes_is_read(built: Built, kind: tuple[str, str]) -> None:
    """Bound to the decoder as a session on that chip would announce it."""
    file = built[kind]
    layout = "NHWC" if file.container == SMALL else "NC1HWC2"
    for classes in range(1, MOST + 1):
        score = f"c{classes}"
        apart = contract(8 * SIDE, ("c64", "box"), (score, "score"), classes=classes)
        found = bind_native(parts(file, "c64", score), apart)
        assert [spec.layout for spec in found] == [layout, layout]
        anchors = (((8.0, 8.0), (16.0, 16.0), (32.0, 8.0)),)
        each = 5 + classes
        if 3 * each <= MOST:
            name = f"c{3 * each}"
            fields = {"coding": "anchor", "objectness": "product", "anchors": anchors}
            joined = contract(8 * SIDE, (name, "anchors"), classes=classes, **fields)
            bind_native(parts(file, name), joined)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([kind for kind in KINDS if chips()[kind[0]].container != SMALL]),
    head=st.sampled_from(list(native_heads.HEADS)),
    classes=st.integers(1, MOST),
    worst=st.integers(0, 2),
    seed=st.integers(0, 2**31),
)
def test_a_head_with_the_compilers_padding_answers_as_in_the_graph(
    built: Built, kind: tuple[str, str], head: str, classes: int, worst: int, seed: int
) -> None:
    native = by_channels(built[kind])
    made = native_heads.head_of(head, classes)
    counts = [native_heads.shape_of(made, output)[1] for output in made.outputs]
    assume(max(counts) <= MOST)

    def padding(channels: int) -> native_heads.Padding:
        _, blocks, _, _, width = native[channels].shape
        return native_heads.Padding(width, blocks - -(-channels // width), 0)

    integers = kind[1] == "int8"
    garbage = native_heads.GARBAGE[integers][worst]
    plain, there = native_heads.tensors(
        made, seed, integers=integers, garbage=garbage, padding=padding
    )
    native_heads.same(native_heads.read(made, *there), native_heads.read(made, *plain))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_the_graph_has(built: Built, kind: tuple[str, str]) -> None:
    """The native shape holds the graph's channels, never less, and its very cells."""
    file = built[kind]
    assert file.platforms == (kind[0],)
    assert [spec.name for spec in file.outputs] == [f"c{n}" for n in range(1, MOST + 1)]
    for plain, native in zip(file.outputs, file.native_outputs, strict=True):
        channels = int(plain.name[1:])
        assert plain.shape == (1, channels, SIDE, SIDE)
        _, blocks, height, width, depth = native.shape
        assert (height, width) == (SIDE, SIDE)
        assert blocks * depth >= channels
        assert native.channels == channels
        same = msgspec.structs.replace(native, shape=plain.shape, layout="NCHW", channels=0)
        assert same == plain
    (image,) = file.native_inputs
    assert (image.shape, image.layout) == ((1, SIDE, SIDE, 3), "NHWC")
