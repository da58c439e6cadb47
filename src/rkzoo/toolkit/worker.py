"""Toolkit worker, the only file that imports RKNN-Toolkit2: a script for the interpreter of its
environment.

It needs the standard library, numpy and rknn (and for `translate` TensorFlow and tf2onnx, or
PyTorch), works on Python 3.8 and does not import rkzoo; process.py starts it and imports `send` and
`receive` from it, so that the protocol is written once. A message is a length (4 bytes, little
endian), a JSON header of that length, and the raw bytes of the arrays that the header lists under
"arrays".

Arguments: the descriptor to read requests from, the one to write answers to, the process id of the
parent. Descriptors 1 and 2 are the log, opened by the parent.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Header = dict[str, Any]
    Answer = tuple[Header, list[Any]]

_STEM = "hybrid"
_TABLE = "chosen.cfg"
# What the second half of a hybrid build needs.
KEPT = (_STEM + ".model", _STEM + ".data", _TABLE)

_LENGTH = struct.Struct("<I")
_OPSET = 13
# Operators whose output holds the very numbers of their inputs.
_MOVES = (
    "exDataConvert",
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Concat",
)
_SIGMOID_END = 7.0  # the toolkit cuts what a sigmoid reads to -7..7
_SCRIPT_OPSET = 17  # of PyTorch's operators, more have a form in it


def send(write: Callable[[Any], None], header: Header, arrays: Sequence[Any] = ()) -> None:
    """Write one message. `write` must take all the bytes it is given."""
    blocks = [np.ascontiguousarray(array) for array in arrays]
    listed = [{"dtype": block.dtype.str, "shape": block.shape} for block in blocks]
    text = json.dumps({**header, "arrays": listed}).encode("utf-8")
    write(_LENGTH.pack(len(text)) + text)
    for block in blocks:
        write(block.reshape(-1).view(np.uint8).data)


def receive(read: Callable[[int], bytes | bytearray]) -> Answer:
    """Read one message. `read(n)` must return n bytes, or raise EOFError."""
    header = json.loads(read(_LENGTH.unpack(read(_LENGTH.size))[0]).decode("utf-8"))
    arrays = []
    for listed in header.pop("arrays"):
        dtype = np.dtype(listed["dtype"])
        count = int(np.prod(listed["shape"], dtype=np.int64)) * dtype.itemsize
        arrays.append(np.frombuffer(read(count), dtype).reshape(listed["shape"]))
    return header, arrays


class JobRefused(Exception):
    """A toolkit call that did not raise but did not succeed."""


class Jobs:
    """The commands of the parent; one built model at a time."""

    def __init__(self) -> None:
        self._model: Any = None
        self._formats: list[str] = []
        self._inputs: list[Header] = []
        self._running = False
        self._calibrated = ""

    def start(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Import the toolkit, so that a broken environment fails at once."""
        import rknn.api  # noqa: F401

        return {}, []

    def translate(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Convert header["source"] to the ONNX file header["onnx"].

        A .tflite or a frozen graph (.pb) needs an environment with TensorFlow. Image inputs become
        NCHW, and quantized weights the floats that they stand for. "inputs" (tensors inside the
        frozen graph, with their shapes) and "outputs" select a part of it. A TorchScript archive
        needs an environment with PyTorch; "inputs" are then all its inputs.
        """
        source = header["source"]
        with open(source, "rb") as file:
            magic = file.read(8)
        if magic[:4] == b"PK\3\4":
            export_script(source, header["inputs"], header["onnx"])
            return {}, []
        from tf2onnx import convert  # type: ignore[import-not-found]

        if magic[4:] == b"TFL3":
            options = ["--tflite", source, "--dequantize", *pictures_first(tflite_inputs(source))]
        else:
            inputs, outputs = header["inputs"], header["outputs"]
            if not inputs:
                inputs, outputs = graph_ends(source)
            shaped = [f"{name}{_bracketed(shape)}" for name, shape in inputs.items()]
            options = ["--graphdef", source, *pictures_first(inputs)]
            options += ["--inputs", ",".join(shaped), "--outputs", ",".join(outputs)]
        # The command line is tf2onnx's stable interface; its functions are not.
        sys.argv = ["tf2onnx", *options, "--output", header["onnx"], "--opset", str(_OPSET)]
        convert.main()
        return {}, []

    def build(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Build header["onnx"] and export it to header["export"].

        "inputs": a list of {name, shape, mean, std}; one with a mean is a picture.
        "batch": how many samples the built model takes at once.
        "config": further arguments of RKNN.config. "calibration": a folder with
        calibration-<i>.npy for input i, or null for a graph that stays as it is, in float or with
        its own scales; with "unused_calibration" it is quantised all the same, by nothing that it
        saw. "auto_hybrid": whether the toolkit looks itself for tensors that stay in float16.
        "float_layers": such that were chosen. "scores": outputs that are scores in 0..1, and are
        stored so, whatever calibration saw. "custom": a list of {type, model}, custom operators and
        the ONNX model (base64) that computes each. "keep": whether a later build shall do without
        calibrating; "kept": a folder with what an earlier one left for that, or null. Answers what
        calibration saw as "seen", the highest number of each, and as "files" what it left.
        """
        model: Any = None
        seen: dict[str, float] = {}
        files: list[str] = []
        if header["kept"]:
            model = self._resumed(header)
        chosen = bool(header["float_layers"])
        changed = header["scores"] or header["ranges"]
        # What `mmse` and `gdq` find for the weights is not written down by the first half.
        whole = header["auto_hybrid"] or header["config"]["quantized_algorithm"] in ("mmse", "gdq")
        # The second half forgets all shapes but the first, and says nothing.
        several = "dynamic_input" in header["config"]
        whole = whole or several
        keep = header["keep"] and header["calibration"] is not None and not whole
        if model is None and (chosen or keep or (changed and not whole)):
            try:
                model, seen = self._hybrid(header)
            except Exception:
                if chosen:
                    raise
                # The plain build leaves the scores to calibration, and says better what is wrong.
                traceback.print_exc()
            # Without one of its optimisations the toolkit is not as the next process finds it.
            if model is not None and keep and not header["config"].get("disable_rules"):
                files = [os.path.abspath(name) for name in KEPT]
        if model is None:
            model = self._fresh(header)
            self._load(model, header)
            if header["calibration"] is None and not header.get("unused_calibration"):
                _done("build", model.build(do_quantization=False, **self._batch(header)))
            else:
                folder = header["calibration"] or zeros_for_calibration(header["inputs"])
                dataset = unpack_calibration(Path(folder), header["inputs"])
                # Older versions do not have this argument.
                more = {"auto_hybrid": True} if header["auto_hybrid"] else {}
                more.update(self._batch(header))
                with ranges_within(header, several) as seen:
                    _done("build", model.build(do_quantization=True, dataset=dataset, **more))
        _done("export_rknn", model.export_rknn(header["export"]))
        return {"seen": seen, "files": files}, []

    def _resumed(self, header: Header) -> Any:
        """A build from what an earlier calibration left; None where that cannot be."""
        graph, data, table = (str(Path(header["kept"], name)) for name in KEPT)
        try:
            model = self._fresh(header)
            data = retargeted(data, model, header["onnx"])
            status = model.hybrid_quantization_step2(graph, data, table)
            _done("hybrid_quantization_step2", status)
        except Exception:
            traceback.print_exc()  # another version of the toolkit, perhaps
            return None
        return model

    def _hybrid(self, header: Header) -> tuple[Any, dict[str, float]]:
        """A build in two halves, with the table of ranges changed between them; and the highest
        number that calibration saw of each of the scores. The numbers are those of a plain
        build, and the first half can be kept."""
        stem = self._calibrate(header)
        table = Path(stem + ".quantization.cfg").read_text("utf-8")
        seen: dict[str, float] = {}
        if header["scores"] or header["ranges"]:
            entries = read_ranges(table)
            ranges, seen = chosen_ranges(entries, read_nodes(stem), header)
            table = with_ranges(table, entries, ranges)
        if header["float_layers"]:
            table = with_float_layers(table, header["float_layers"])
        Path(_TABLE).write_text(table, "utf-8")
        # A model of its own: the one that calibrated refuses to go on.
        model = self._fresh(header)
        status = model.hybrid_quantization_step2(stem + ".model", stem + ".data", _TABLE)
        _done("hybrid_quantization_step2", status)
        return model, seen

    def tensors(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Calibrates and builds nothing: the toolkit's table of ranges as "config" (yaml) and
        its optimised graph as "nodes", a list of [op, inputs, outputs]."""
        stem = self._calibrate(header)
        return {
            "config": Path(stem + ".quantization.cfg").read_text("utf-8"),
            "nodes": read_nodes(stem),
        }, []

    def _fresh(self, header: Header) -> Any:
        """A configured RKNN object; the previous one is released."""
        from rknn.api import RKNN

        if self._model is not None:
            self._model.release()
        self._running = False
        # The toolkit resets it after each build, and the next would print no layer table.
        os.environ["RKNN_LOG_LEVEL"] = "5"
        self._model = model = RKNN()
        self._inputs = inputs = header["inputs"]
        self._formats = ["nhwc" if spec["mean"] else "nchw" for spec in inputs]
        _done(
            "config",
            model.config(
                mean_values=[spec["mean"] for spec in inputs],
                std_values=[spec["std"] for spec in inputs],
                **header["config"],
            ),
        )
        for custom in header["custom"]:
            _done("reg_custom_op", model.reg_custom_op(CustomOperator(custom)))
        return model

    @staticmethod
    def _batch(header: Header) -> dict[str, Any]:
        """The argument that makes a model of one sample one of several."""
        return {"rknn_batch_size": header["batch"]} if header.get("batch", 1) > 1 else {}

    def _load(self, model: Any, header: Header) -> None:
        given = {
            "inputs": [spec["name"] for spec in header["inputs"]],
            "input_size_list": [spec["shape"] for spec in header["inputs"]],
        }
        if header["config"].get("dynamic_input"):
            given = {}  # it says the same, and the toolkit fails on both
        _done("load_onnx", model.load_onnx(header["onnx"], **given))

    def _calibrate(self, header: Header) -> str:
        """The first half of a hybrid build, which writes the ranges to files.

        Done once per model, calibration and configuration, so that trying other float layers costs
        only the second half. Returns the stem of the files' names.
        """
        stem = _STEM
        current = digest(header)
        if current == self._calibrated:
            return stem
        self._calibrated = ""
        skip_entropy()
        model = self._fresh(header)
        # The toolkit names its files after the model's.
        shutil.copyfile(header["onnx"], stem + ".onnx")
        self._load(model, {**header, "onnx": stem + ".onnx"})
        dataset = unpack_calibration(Path(header["calibration"]), header["inputs"])
        _done(
            "hybrid_quantization_step1",
            model.hybrid_quantization_step1(dataset=dataset, **self._batch(header)),
        )
        self._calibrated = current
        return stem

    def infer(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Run the built model in the simulator: float32 outputs in the graph's own layout."""
        if self._model is None:
            raise JobRefused("infer was asked for before build")
        if not self._running:
            _done("init_runtime", self._model.init_runtime())
            self._running = True
        outputs = self._model.inference(inputs=list(arrays), data_format=self._formats)
        if outputs is None:
            raise JobRefused("inference returned None")
        return {}, [np.asarray(output) for output in outputs]

    def analyse(self, header: Header, arrays: Sequence[Any]) -> Answer:
        """Run the toolkit's layer-by-layer comparison with the float model for each sample of
        `arrays` (one stack per input): "tables", one text each.

        The toolkit writes every tensor to disk twice, which is deleted at once.
        """
        if self._model is None:
            raise JobRefused("analyse was asked for before build")
        place = Path("snapshot")
        tables = []
        for row in unpack(arrays, self._inputs, "a"):
            try:
                status = self._model.accuracy_analysis(inputs=row, output_dir=str(place))
                _done("accuracy_analysis", status)
                tables.append((place / "error_analysis.txt").read_text("utf-8"))
            finally:
                shutil.rmtree(place, ignore_errors=True)
                for name in row:
                    os.unlink(name)
        return {"tables": tables}, []


class CustomOperator:
    """A custom operator in the form that the toolkit asks for, names of arguments included.

    Shapes are those that the operator gives for zeros: sizes are free, as in a batch.
    """

    def __init__(self, custom: Header) -> None:
        import onnxruntime

        self.op_type = custom["type"]
        self._session = onnxruntime.InferenceSession(
            base64.b64decode(custom["model"]), providers=["CPUExecutionProvider"]
        )

    def shape_infer(self, node: Any, in_shapes: Any, in_dtypes: Any) -> tuple[list[Any], list[Any]]:
        outputs = self.compute(node, [np.zeros(*one) for one in zip(in_shapes, in_dtypes)])  # noqa: B905
        return [list(output.shape) for output in outputs], [output.dtype for output in outputs]

    def compute(self, node: Any, inputs: Sequence[Any]) -> list[Any]:
        names = [one.name for one in self._session.get_inputs()]
        given = {name: np.ascontiguousarray(value) for name, value in zip(names, inputs)}  # noqa: B905
        outputs: list[Any] = self._session.run(None, given)
        return outputs


def export_script(source: str, inputs: dict[str, list[int]], target: str) -> None:
    """Export a TorchScript archive to ONNX. It is run once on random input to get its shapes."""
    import torch  # type: ignore[import-not-found]

    # Its unpickler creates only tensors and plain data; the archive's code is TorchScript.
    module = torch.jit.load(source, map_location="cpu").float().eval()
    takes = len(module.forward.schema.arguments) - 1  # without self
    if takes != len(inputs):
        raise ValueError(f"it takes {takes} inputs, and rkzoo gives it one picture")
    torch.manual_seed(0)
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(torch.rand(shape) for shape in inputs.values()),
            target,
            opset_version=_SCRIPT_OPSET,
            dynamo=False,  # the other exporter does not take TorchScript
            input_names=list(inputs),
        )


def tflite_inputs(source: str) -> dict[str, list[int]]:
    """Name and shape of a .tflite's inputs."""
    import tensorflow  # type: ignore[import-untyped]

    return {
        detail["name"]: [int(side) for side in detail["shape_signature"]]
        for detail in tensorflow.lite.Interpreter(source).get_input_details()
    }


def graph_ends(source: str) -> tuple[dict[str, list[int]], list[str]]:
    """Inputs and outputs of a frozen graph: the placeholders, with their shapes where known, and
    the tensors that no node reads.
    """
    import tensorflow

    graph = tensorflow.compat.v1.GraphDef()
    graph.ParseFromString(Path(source).read_bytes())
    takes = {
        node.name + ":0": [int(dim.size) for dim in node.attr["shape"].shape.dim]
        for node in graph.node
        if node.op.startswith("Placeholder")
    }
    read = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}
    gives = [
        node.name + ":0"
        for node in graph.node
        if node.name not in read and node.input and node.op not in ("Assert", "NoOp")
    ]
    if not takes or not gives:
        raise JobRefused("the graph has no placeholders: it is not frozen")
    return takes, gives


def _bracketed(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]" if shape else ""


def pictures_first(inputs: Header) -> list[str]:
    """The arguments that make image inputs NCHW."""
    names = [name for name, shape in inputs.items() if len(shape) == 4 and shape[-1] in (1, 3, 4)]
    return ["--inputs-as-nchw", ",".join(names)] if names else []


def _done(call: str, status: Any) -> None:
    if status != 0:
        raise JobRefused(f"{call} returned {status}")


def zeros_for_calibration(inputs: Sequence[Header]) -> str:
    """Write one sample of nothing for each input where `unpack_calibration` finds it."""
    for number, spec in enumerate(inputs):
        shape = spec["shape"]
        picture = [shape[0], *shape[2:], shape[1]] if spec["mean"] else [1, *shape]
        kind = np.uint8 if spec["mean"] else spec.get("dtype", "float32")
        np.save(f"calibration-{number}.npy", np.zeros(picture, kind))
    return "."


def unpack_calibration(folder: Path, inputs: Sequence[Header]) -> str:
    """Write one .npy per sample and input to the working directory, and a list of them.

    Names are relative to the list. Returns the list's name.
    """
    stacks = [
        np.load(folder / f"calibration-{number}.npy", mmap_mode="r")
        for number in range(len(inputs))
    ]
    lines = [" ".join(row) for row in unpack(stacks, inputs, "c")]
    Path("dataset.txt").write_text("\n".join(lines) + "\n")
    return "dataset.txt"


def unpack(stacks: Sequence[Any], inputs: Sequence[Header], prefix: str) -> list[list[str]]:
    """Write stacked samples (images NHWC) in the toolkit's form: one .npy each, NCHW, not
    normalized, without spaces in its name. Returns the names, one row per sample.
    """
    names: list[list[str]] = []
    for number, (spec, stack) in enumerate(zip(inputs, stacks)):  # noqa: B905
        names.append([])
        for index, sample in enumerate(stack):
            array = np.moveaxis(sample, -1, 0) if spec["mean"] else sample
            name = f"{prefix}{number}-{index:05d}.npy"
            np.save(name, np.ascontiguousarray(array).reshape(spec["shape"]))
            names[-1].append(name)
    return [list(row) for row in zip(*names)]  # noqa: B905


def with_float_layers(config: str, names: Sequence[str]) -> str:
    """The text of a `.quantization.cfg` with `names` (and no other tensor) in float16.

    Only that key is rewritten, in yaml's flow style, where a JSON string is valid for any name (but
    for characters beyond ASCII, which yaml escapes differently); an explicit key (?) may be of any
    length.
    """
    quoted = ", ".join(f'? {json.dumps(name, ensure_ascii=False)} : "float16"' for name in names)
    chosen = re.sub(r"[^ -~]", lambda match: f"\\U{ord(match[0]):08x}", f"{{{quoted}}}")
    changed, count = re.subn(
        r"^custom_quantize_layers:.*\n(?:[ \t#].*\n)*",
        lambda _: f"custom_quantize_layers: {chosen}\n",
        config,
        count=1,
        flags=re.MULTILINE,
    )
    if not count:
        raise JobRefused("the table of ranges has no place for float layers")
    return changed


def read_nodes(stem: str) -> list[list[Any]]:
    """The toolkit's optimised graph as [op, inputs, outputs]."""
    import onnx

    graph = onnx.load(stem + ".model").graph
    return [[node.op_type, list(node.input), list(node.output)] for node in graph.node]


def read_ranges(table: str) -> dict[str, Any]:
    """The entries of a `.quantization.cfg` by tensor, in its order."""
    from ruamel.yaml import YAML  # type: ignore[import-not-found]  # the toolkit has it

    ranges: dict[str, Any] = YAML(typ="safe").load(table)["quantize_parameters"]
    return ranges


def score_ranges(
    entries: dict[str, Any], nodes: Sequence[Any], scores: Sequence[str]
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Ranges to set so that `scores`, outputs of the graph, can reach 1, and the highest number
    that calibration saw of each. What only moves their numbers gets the same range, and what a
    sigmoid reads the range that the toolkit gives a sigmoid at most."""
    makers = {name: node for node in nodes for name in node[2]}
    ranges: dict[str, tuple[float, float]] = {}
    seen: dict[str, float] = {}
    for output in scores:
        seen[output] = float(max(entries[output]["ori_max"]))
        todo = [output]
        while todo:
            name = todo.pop()
            if name not in entries:
                continue  # a constant
            ranges[name] = (0.0, 1.0)
            op, reads, _ = makers.get(name, ("", [], []))
            if op in _MOVES:
                todo += reads
            elif op == "Sigmoid" and sum(reads[0] in node[1] for node in nodes) == 1:
                ranges[reads[0]] = (-_SIGMOID_END, _SIGMOID_END)
    return ranges, seen


def chosen_ranges(
    entries: dict[str, Any], nodes: Sequence[Any], header: Header
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """The ranges to set of the tensors in the table: header["ranges"], and what the scores need
    where that is wider than what calibration saw; and the highest number that it saw of each."""
    scores, seen = score_ranges(entries, nodes, header["scores"])
    ranges = {name: (low, high) for name, low, high in header["ranges"]}
    ranges.update(
        (name, ends) for name, ends in scores.items() if entries[name]["max"][0] < ends[1]
    )
    whole = {
        name: ends
        for name, ends in ranges.items()
        if len(entries.get(name, {}).get("max", ())) == 1
    }
    return whole, seen


@contextlib.contextmanager
def ranges_within(header: Header, wanted: bool) -> Iterator[dict[str, float]]:
    """Sets ranges (see `chosen_ranges`), where wanted, during a build that writes no table of them;
    gives the highest number that calibration saw of each of the scores, which is empty where this
    toolkit is another inside."""
    seen: dict[str, float] = {}
    try:
        from rknn.api.quantizer import Quantizer

        calibrate = Quantizer._get_layer_range
    except (ImportError, AttributeError):
        calibrate = None
    if calibrate is None or not wanted or not (header["scores"] or header["ranges"]):
        yield seen
        return

    def calibrated(quantizer: Any) -> Any:
        status = calibrate(quantizer)
        try:
            table = quantizer.quant_tab
            nodes = [[n.op_type, list(n.input), list(n.output)] for n in quantizer.ir.graph.node]
            ranges, highest = chosen_ranges(table, nodes, header)
            for name, (low, high) in ranges.items():
                table[name].update(min=[low], max=[high])
            seen.update(highest)
        except Exception:
            traceback.print_exc()  # calibration decides, as it did
        return status

    Quantizer._get_layer_range = calibrated
    try:
        yield seen
    finally:
        Quantizer._get_layer_range = calibrate


def with_ranges(table: str, entries: dict[str, Any], ranges: dict[str, tuple[float, float]]) -> str:
    """The text of a `.quantization.cfg` (and what it says) with the range of these tensors."""
    # Names may be quoted, folded or keys of their own line; "qtype" opens each entry.
    parts = re.split(r"(?m)^(?=[ :]+qtype:)", table)
    if len(parts) != len(entries) + 1:
        raise JobRefused("the table of ranges is not as it was expected")
    for place, name in enumerate(entries, 1):
        for key, value in zip(("min", "max"), ranges.get(name, ())):  # noqa: B905
            changed, count = re.subn(
                rf"(?m)^( +{key}:\n +- +)\S+$", rf"\g<1>{value}", parts[place], count=1
            )
            if not count:
                raise JobRefused("the table of ranges has no place for a range")
            parts[place] = changed
    return "".join(parts)


def retargeted(data: str, model: Any, onnx: str) -> str:
    """A kept `.data` for the chip and the description that `model` is configured with, which are
    all that it holds of them (measured on seven chips), and the path of the graph."""
    kept = pickle.loads(Path(data).read_bytes())
    base = model.rknn_base
    kept.update(args=base.args, npu_target=base.npu_target, ori_model_path=onnx)
    Path("kept.data").write_bytes(pickle.dumps(kept))
    return "kept.data"


def skip_entropy() -> None:
    """Takes from a hybrid build the entropy of each tensor in each picture, on which it spends
    most of its time and which only its proposals read: the table of ranges is the same."""
    try:
        from rknn.api.quantizer import Quantizer
    except ImportError:
        return
    if hasattr(Quantizer, "_cal_entropy"):
        Quantizer._cal_entropy = lambda *args, **kwargs: 0.0


def digest(header: Header) -> str:
    """Digest of what affects the ranges: model, calibration and configuration."""
    config = {key: value for key, value in header["config"].items() if key != "custom_string"}
    settings = [header["inputs"], config, header["custom"]]
    hasher = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in [Path(header["onnx"]), *sorted(Path(header["calibration"]).glob("*.npy"))]:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                hasher.update(block)
    return hasher.hexdigest()


def _serve(requests: int, answers: int, libc: ctypes.CDLL) -> None:
    import resource  # not on Windows, where the parent imports this module all the same

    jobs = Jobs()

    def read(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(requests, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def write(block: Any) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(answers, view) :]

    while True:
        try:
            header, arrays = receive(read)
        except EOFError:
            return
        output_arrays: list[Any] = []
        try:
            reply, output_arrays = getattr(Jobs, header.pop("do"))(jobs, header, arrays)
        except Exception as error:
            if not isinstance(error, JobRefused):
                traceback.print_exc()
            reply = {"error": str(error) or type(error).__name__, "kind": type(error).__name__}
        reply["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        sys.stdout.flush()
        libc.fflush(None)
        send(write, reply, output_arrays)


def main() -> None:
    requests, answers, parent = (int(text) for text in sys.argv[1:4])
    libc = ctypes.CDLL(None)
    # Ends with its parent, however that ends.
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
    os.set_inheritable(requests, False)
    os.set_inheritable(answers, False)
    # The native half prints through stdio: line-buffered, so that a crash loses nothing.
    libc.setlinebuf(ctypes.c_void_p.in_dll(libc, "stdout"))
    _serve(requests, answers, libc)


if __name__ == "__main__":
    main()
