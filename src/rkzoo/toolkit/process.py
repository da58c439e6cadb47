"""RKNN-Toolkit2 in a child process: every failure becomes one RkzooError.

The child has its own session, its own scratch folder as working directory and TMPDIR, and its log
as stdout and stderr; requests and answers use two pipes (worker.py). It ends with its parent, and
with `close`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, os_errors_explained
from rkzoo.progress import SILENT, ProgressReporter, ProgressTask
from rkzoo.session import Closeable
from rkzoo.toolkit import builds, logs, logscan, scratch, worker
from rkzoo.toolkit.analysis import LayerError, read_errors, worst
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.logscan import Finding, LayerCost
from rkzoo.toolkit.recipe import Dtype, InputPlan, Recipe
from rkzoo.toolkit.scales import unseen_scores
from rkzoo.toolkit.tensors import Node, QuantisedTensor, read_tensors

Array = NDArray[Any]

SIMULATED_SOC = "rk3588"
"""The chip of every simulation: results are the same for every chip (measured on ten), and the
files of some chips do not hold the output scales.
"""
_SIMULATED_W4A16 = "rk3576"  # bit-equal to rv1126b, the other chip that has it (measured)

START_TIMEOUT = 120.0
BUILD_TIMEOUT = 3600.0
INFER_TIMEOUT = 600.0
ANALYSE_TIMEOUT = 1800.0  # per sample
_DISK_FULL = 1 << 20  # bytes
_LONGEST_LINE = 200
_RUNTIME_PREFIX = re.compile(r"^onnxruntime\.\S+: (\[ONNXRuntimeError\] : \d+ : \w+ : )?")
_PIPE = 1 << 20  # bytes: an image and a head's outputs pass in a few pieces

_CONFIG: dict[Dtype, dict[str, str]] = {
    "int8": {"quantized_dtype": "w8a8"},
    "fp16": {"float_dtype": "float16"},
    "w4a16": {"quantized_dtype": "w4a16"},
}


@dataclass(frozen=True)
class BuildReport:
    """A finished build.

    Attributes:
        rknn: The file.
        soc: The chip.
        toolkit: The toolkit version.
        seconds: Build time.
        size: File size in bytes.
        peak: Peak memory of the child in bytes.
        findings: Possible problems in the log.
        layers: The compiler's cost table for `soc`.
        internal: Working memory on the chip in bytes; None where the log does not say.
        weights: Weight memory likewise.
    """

    rknn: Path
    soc: str
    toolkit: str
    seconds: float
    size: int
    peak: int
    findings: tuple[Finding, ...]
    layers: tuple[LayerCost, ...]
    internal: int | None
    weights: int | None


class ModelRefused(RkzooError):
    """The toolkit failed on this very model: no want of time, memory or disk."""


class ToolkitProcess(Closeable):
    """A toolkit process, for one build at a time and any number of inferences of it.

    A context manager; `close` (also at garbage collection and at exit) kills the child and removes
    its folder. Methods raise RkzooError with code 1 for every failure in the child, which is gone
    after that. Thread-safe: threads take turns.

    Args:
        env: The toolkit environment.
        report: Receives progress and notes.
        script: Replaces worker.py, for tests.
    """

    def __init__(
        self, env: ToolkitEnv, *, report: ProgressReporter = SILENT, script: Path | None = None
    ) -> None:
        self._env, self._report = env, report
        self._turn = threading.RLock()
        self._label = "start"
        folder = scratch.make()
        self.folder = folder.path
        self._log = self.folder / "toolkit.log"
        self._spec: BuildInputs | None = None
        try:
            self._child = _Child(env, folder.path, self._log, script or Path(worker.__file__))
        except BaseException:
            folder.remove()
            raise
        self._finalizer = weakref.finalize(self, _dispose, self._child, folder)
        self._command({"do": "start"}, (), START_TIMEOUT, _silent)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.popen.pid

    def build(
        self,
        plan: BuildInputs,
        out: Path,
        *,
        keep: bool = False,
        timeout: float = BUILD_TIMEOUT,
    ) -> BuildReport:
        """Build `plan` for its recipe's chip and write `out` (atomically).

        Args:
            plan: Inputs of the build.
            out: The .rknn to write.
            keep: Whether what calibration leaves is kept in the cache, so that simulating the
                model later need not calibrate.
            timeout: In seconds.

        Raises:
            RkzooError: The build fails.
        """
        report = self._build(plan, timeout, keep)
        out = Path(out)
        with atomic_output(out) as temporary:
            shutil.copyfile(report.rknn, temporary)
        return replace(report, rknn=out)

    def build_for_simulation(
        self, plan: BuildInputs, *, timeout: float = BUILD_TIMEOUT
    ) -> BuildReport:
        """Build `plan` for the simulator, i.e. for `simulated_soc` whatever its chip is.

        Float layers, given or found by `auto_hybrid`, are simulated too. Another call that differs
        only in `float_layers` does not calibrate again, nor does one whose calibration an earlier
        build left in the cache.

        Args:
            plan: Inputs of the build.
            timeout: In seconds.

        Returns:
            The build; its `rknn` is in the scratch folder until `close` and holds the output
            scales.

        Raises:
            RkzooError: The build fails.
        """
        recipe = msgspec.structs.replace(plan.recipe, soc=simulated_soc(plan.recipe.dtype))
        plan = replace(plan, recipe=recipe)
        kept = builds.find_calibrated(plan, self._env.version, self._report)
        return self._build(plan, timeout, True, kept)

    def translate(
        self,
        source: Path,
        out: Path,
        *,
        inputs: Mapping[str, Sequence[int]] | None = None,
        outputs: Sequence[str] = (),
        timeout: float = BUILD_TIMEOUT,
    ) -> None:
        """Convert a .tflite, a frozen TensorFlow graph (.pb) or a TorchScript archive to ONNX, in
        float.

        TensorFlow formats need an environment of the kind `tensorflow`, TorchScript the kind
        `full`.

        Args:
            source: The model file.
            out: The .onnx to write.
            inputs: Shapes by input name; of a frozen graph, where the wanted part begins; of
                TorchScript, all inputs.
            outputs: Of a frozen graph, where the wanted part ends.
            timeout: In seconds.

        Raises:
            RkzooError: The conversion fails.
        """
        with self._turn:
            self._label = f"read {source.name}"
            self._spec = None
            path = self.folder / "translated.onnx"
            path.unlink(missing_ok=True)
            request = {
                "do": "translate",
                "source": str(source.absolute()),
                "onnx": str(path),
                "inputs": dict(inputs or {}),
                "outputs": list(outputs),
            }
            self._command(request, (), timeout, _silent)
            if not path.exists():
                raise self._fail("It reported success and wrote no file.")
            with atomic_output(Path(out)) as temporary:
                shutil.copyfile(path, temporary)

    def infer(self, arrays: Sequence[Array], *, timeout: float = INFER_TIMEOUT) -> list[Array]:
        """Run the last built model on the simulator.

        Args:
            arrays: One per input: uint8 NHWC (N, H, W, C) for an image, N the recipe's batch, in
                the channel order of the recipe's mean; otherwise in the input's own shape.
            timeout: In seconds.

        Returns:
            float32 arrays in the graph's own layout (NCHW).

        Raises:
            RkzooError: There is no built model, a shape is wrong, or the run fails.
        """
        if self._spec is None:
            raise RkzooError("There is no built model to run.", "Call build first.", code=1)
        fed = _checked_arrays(arrays, self._spec.recipe)
        self._label = "run the model on the simulator"
        _, outputs = self._command({"do": "infer"}, fed, timeout, _silent)
        return outputs

    def quantised_tensors(
        self, plan: BuildInputs, *, timeout: float = BUILD_TIMEOUT
    ) -> tuple[QuantisedTensor, ...]:
        """The INT8 tensors of a model with their scales, by the names that `Recipe.float_layers`
        takes.

        Calibrates without building. The toolkit is slow at that (40 s for yolov8n and 8 images,
        where a plain build takes 6), but a later build with float layers in the same process does
        not calibrate again (4.5 s).

        Args:
            plan: Inputs of the build.
            timeout: In seconds.

        Returns:
            The tensors in the graph's order.

        Raises:
            RkzooError: `plan` is not quantized by the toolkit.
        """
        _refuse_unmeasured(plan.recipe, "find the scales")
        if plan.recipe.dtype != "int8":
            raise RkzooError(
                f"A model in {plan.recipe.dtype} has no quantised tensors.",
                "Only INT8 has scales.",
                "Use --dtype int8.",
            )
        recipe = msgspec.structs.replace(plan.recipe, soc=SIMULATED_SOC, float_layers=())
        plan = replace(plan, recipe=recipe)
        request = self._request(plan, "tensors")
        with self._turn:
            self._label = "find the scales of the model's tensors"
            self._spec = None
            with self._report.task("Calibrating", 100) as task:
                answer, _ = self._command(request, (), timeout, _Stages(task).read)
                task.update(100, 100)
        nodes = [Node(op, tuple(reads), tuple(makes)) for op, reads, makes in answer["nodes"]]
        return read_tensors(answer["config"], nodes)

    def analyse(
        self,
        plan: BuildInputs,
        pictures: Sequence[Array],
        *,
        timeout: float = ANALYSE_TIMEOUT,
    ) -> tuple[LayerError, ...]:
        """Compare the quantized model with the float one, tensor by tensor.

        `plan` is built for simulation unless it was the last such build, and can be run by `infer`
        afterwards. An image takes 25 s for yolov8n, and 1.2 GB of disk in the cache until it is
        done.

        Args:
            plan: Inputs of the build.
            pictures: One stack of samples per input: uint8 NHWC (N, H, W, C) for an image,
                otherwise (N, *shape).
            timeout: In seconds, per sample.

        Returns:
            The errors in the graph's order; of several images, the worst.

        Raises:
            RkzooError: The comparison fails, or the graph is already quantized, so that the toolkit
                has no float model.
        """
        _refuse_unmeasured(plan.recipe, "compare layer by layer")
        plans = plan.recipe.inputs
        stacks = [
            _samples(stack, input_plan) for stack, input_plan in zip(pictures, plans, strict=False)
        ]
        count = len(stacks[0]) if stacks else 0
        if len(pictures) != len(plans) or not count or any(len(stack) != count for stack in stacks):
            raise RkzooError(
                "There must be samples for each input, and as many for one as for another.", code=1
            )
        recipe = msgspec.structs.replace(plan.recipe, soc=SIMULATED_SOC)
        with self._turn:
            if self._spec != replace(plan, recipe=recipe):
                self.build_for_simulation(plan)
            self._label = "compare the model with its float original, layer by layer"
            with self._report.task("Comparing layer by layer", 100) as task:
                watch = _Passes(task, count).read
                answer, _ = self._command({"do": "analyse"}, stacks, timeout * count, watch)
                task.update(100, 100)
        layer_errors = worst([read_errors(text) for text in answer["tables"]])
        if not layer_errors:
            raise RkzooError(
                "The toolkit's comparison layer by layer is empty.",
                "Its file error_analysis.txt has no row that rkzoo can read.",
                "Try another toolkit version.",
                code=1,
            )
        return layer_errors

    def kill(self) -> None:
        """Kill the child; a call that waits for it in another thread fails then."""
        self._child.kill()

    def close(self) -> None:
        """Kill the child and remove its folder. May be called twice."""
        self._finalizer()

    def _request(self, plan: BuildInputs, do: str) -> worker.Header:
        recipe = plan.recipe
        calibrated = is_calibrated(recipe)
        if calibrated and plan.calibration is None:
            # The toolkit would silently build in float.
            raise RkzooError(
                f"{recipe.dtype.upper()} needs calibration pictures, and there are none.",
                "Without them the tensor ranges are unknown.",
                "Give some with --calib.",
                code=1,
            )
        return {
            "do": do,
            "onnx": str(plan.onnx.absolute()),
            "inputs": [_input(input_plan) for input_plan in recipe.inputs],
            "config": {
                "target_platform": recipe.soc,
                "optimization_level": recipe.optimization_level,
                # The ranges of `mse` are found here; for weights it is `normal`.
                "quantized_algorithm": "normal" if recipe.algorithm == "mse" else recipe.algorithm,
                "quantized_method": recipe.method,
                "custom_string": plan.custom_string or None,
                **_CONFIG[recipe.dtype],
                **_several_shapes(recipe),
                **_memory(recipe),
            },
            "calibration": str(plan.calibration.absolute())
            if plan.calibration is not None and calibrated
            else None,
            # It decides nothing there, but the toolkit wants a sample.
            "unused_calibration": recipe.dtype == "w4a16" and not calibrated,
            "batch": recipe.batch,
            "auto_hybrid": calibrated and recipe.auto_hybrid,
            "float_layers": list(recipe.float_layers) if calibrated else [],
            "scores": list(recipe.scores) if calibrated and _ranges_change(recipe) else [],
            "ranges": list(recipe.ranges) if calibrated and _ranges_change(recipe) else [],
            "custom": msgspec.to_builtins(recipe.custom),
        }

    def _build(
        self, plan: BuildInputs, timeout: float, keep: bool, kept: Path | None = None
    ) -> BuildReport:
        recipe = plan.recipe
        exported = self.folder / "exported.rknn"
        request = self._request(plan, "build") | {
            "export": str(exported),
            "keep": keep,
            "kept": str(kept) if kept else None,
        }
        with self._turn:
            self._label = f"build the model for {recipe.soc}"
            self._spec = None
            exported.unlink(missing_ok=True)
            begun, start = self._log_size(), time.monotonic()
            with self._report.task(f"Building for {recipe.soc}", 100) as task:
                answer, _ = self._command(request, (), timeout, _Stages(task).read)
                task.update(100, 100)
            seconds = time.monotonic() - start
            try:
                size = exported.stat().st_size
            except OSError:
                size = 0
            if not size:
                raise self._fail("It reported success and wrote no file.")
            self._spec = plan
            if files := answer.get("files"):
                builds.keep_calibrated(plan, self._env.version, [Path(file) for file in files])
            log_scan = logscan.scan(self._log_text(begun))
        findings = (*log_scan.findings, *unseen_scores(answer.get("seen", {})))
        return BuildReport(
            rknn=exported,
            soc=recipe.soc,
            toolkit=self._env.version,
            seconds=seconds,
            size=size,
            peak=int(answer["peak"]),
            findings=findings,
            layers=log_scan.layers,
            internal=log_scan.internal,
            weights=log_scan.weights,
        )

    def _command(
        self,
        header: worker.Header,
        arrays: Sequence[Array],
        timeout: float,
        watch: Callable[[str], None],
    ) -> tuple[worker.Header, list[Array]]:
        with self._turn:
            if not self._finalizer.alive:
                raise RkzooError("The toolkit process has ended already.", code=1)
            begun = self._log_size()
            follow = _LogFollower(self._log, begun, watch)
            channel = _Channel(self._child, time.monotonic() + timeout, follow)
            try:
                worker.send(channel.write, header, arrays)
                answer, output_arrays = worker.receive(channel.read)
            except _TimeoutReached:
                raise self._fail(f"It did not finish within {timeout:.0f} seconds.") from None
            except (EOFError, BrokenPipeError):
                raise self._fail(self._death(begun)) from None
            except BaseException:
                self.close()  # Ctrl-C: nothing continues in the background
                raise
            if "error" in answer:
                if (rule := self._broken_rule(header, begun)) is None:
                    raise self._fail(self._complaint(answer, begun))
                self._report.note(
                    f"The toolkit's optimisation {rule} fails on this model: building without it."
                )
                config = header["config"]
                config = {**config, "disable_rules": [*config.get("disable_rules", ()), rule]}
                return self._command({**header, "config": config}, arrays, timeout, watch)
            return answer, output_arrays

    def _broken_rule(self, header: worker.Header, begun: int) -> str | None:
        """The optimization rule that the log blames, where the job can run without it."""
        rule = logscan.broken_rule(self._log_text(begun))
        config = header.get("config")
        known = config is not None and rule not in config.get("disable_rules", ())
        return rule if known else None

    def _complaint(self, answer: worker.Header, begun: int) -> str:
        """The toolkit's own message for a call that raised, or that returned -1."""
        if answer["kind"] == worker.JobRefused.__name__:
            complaint = logscan.complaint(self._log_text(begun))
            return f"It says: {complaint}" if complaint else f"It only says: {answer['error']}."
        line = _RUNTIME_PREFIX.sub("", logs.last_line(answer["error"]))
        return f"It says: {line[:_LONGEST_LINE] or answer['kind']}"

    def _death(self, begun: int) -> str:
        code = self._child.wait()
        if code == -signal.SIGKILL:
            return "Its process was killed from outside, perhaps for lack of memory."
        complaint = logscan.complaint(self._log_text(begun))
        last = f" Its last message: {complaint}" if complaint else ""
        if code < 0:
            return f"Its process crashed ({signal.Signals(-code).name}).{last}"
        return f"Its process ended unexpectedly (status {code}).{last}"

    def _fail(self, why: str) -> RkzooError:
        """Keep the log, end the child, and create the error."""
        # A full disk shows up in many ways, so check the disk itself.
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self.folder).free < _DISK_FULL:
                why = f"No space left on the disk of {self.folder.parent}. {why}"
        kept = logs.keep_text(self._log_text(0), f"toolkit-{self._env.version}")
        self.close()
        what = f"RKNN-Toolkit2 {self._env.version} could not {self._label}."
        kind = RkzooError if re.search(_PASSING, why) else ModelRefused
        return kind(what, why, _advice(why), code=1, log=kept)

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def _log_text(self, begun: int) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(begun)
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""


def _checked_arrays(arrays: Sequence[Array], recipe: Recipe) -> list[Array]:
    """Arrays as the simulator takes them. Raises RkzooError for a wrong shape."""
    plans = recipe.inputs
    if len(arrays) != len(plans):
        raise RkzooError(
            f"The model takes {len(plans)} inputs and was given {len(arrays)}.", code=1
        )
    fed = []
    for array, plan in zip(arrays, plans, strict=True):
        first, *rest = _sample_shape(plan)
        fed_shape = (first * recipe.batch, *rest)
        others = [(fed_shape[0], *size, rest[-1]) for size in recipe.sizes]
        if tuple(array.shape) not in (fed_shape, *others):
            raise RkzooError(
                f"The input {plan.name} was given the shape {tuple(array.shape)}.",
                f"It takes {fed_shape}.",
                code=1,
            )
        # With float64 the simulator returns nothing.
        fed.append(array.astype(np.float32) if array.dtype == np.float64 else array)
    return fed


def _samples(stack: Array, plan: InputPlan) -> Array:
    """A stack of samples of one input, with its shape checked."""
    for sample in stack[:1]:
        batch, *rest = _sample_shape(plan)
        if tuple(sample.shape) not in ((batch, *rest), tuple(rest)):
            raise RkzooError(
                f"The input {plan.name} was given samples of the shape {tuple(sample.shape)}.",
                f"It takes {tuple(rest)}.",
                code=1,
            )
    return stack.astype(np.float32) if stack.dtype == np.float64 else stack


def _sample_shape(plan: InputPlan) -> tuple[int, ...]:
    n, *rest = plan.shape
    return (n, *rest[1:], rest[0]) if plan.mean else tuple(plan.shape)


def _several_shapes(recipe: Recipe) -> dict[str, Any]:
    """The argument of RKNN.config for a model of several shapes: a list of all inputs each."""
    if not recipe.sizes:
        return {}
    channels = recipe.inputs[0].shape[1]
    return {"dynamic_input": [[[1, channels, *size]] for size in recipe.sizes]}


def _memory(recipe: Recipe) -> dict[str, str]:
    """The arguments of RKNN.config about working memory; versions before 2.5.0 have none."""
    asked = {"memory_plan_strategy": recipe.memory_plan, "compute_order": recipe.compute_order}
    usual = ("BestFit", "WidthFirst")
    return {name: value for name, value in asked.items() if value not in usual}


def simulated_soc(dtype: Dtype) -> str:
    """The chip that a simulation in that data type builds for: SIMULATED_SOC, where that has it."""
    return _SIMULATED_W4A16 if dtype == "w4a16" else SIMULATED_SOC


def is_calibrated(recipe: Recipe) -> bool:
    """Whether samples decide the numbers of a build. 4-bit weights are rounded by themselves
    (bit-equal with pictures and with noise), but for gdq."""
    if recipe.dtype == "w4a16":
        return recipe.algorithm == "gdq"
    return recipe.dtype == "int8" and not recipe.quantised


def _ranges_change(recipe: Recipe) -> bool:
    """Whether ranges can be changed after calibration: the toolkit refuses that under any other
    algorithm, and its own search for float layers leaves no table of them."""
    return recipe.algorithm in ("normal", "mse") and not recipe.auto_hybrid


def _refuse_unmeasured(recipe: Recipe, what: str) -> None:
    """Raise RkzooError for a recipe whose scales are not determined by the toolkit."""
    if recipe.quantised:
        raise RkzooError(
            f"RKNN-Toolkit2 cannot {what} for a model that is already quantised.",
            "It takes the scales from the file and has no float model beside it.",
            "Use the float model from before the quantisation-aware training.",
        )


# Patterns in an error's reason that have nothing to do with the model.
_PASSING = r"No space left|Disk quota|did not finish|killed from outside|MemoryError|bad_alloc"

# Remedies, by patterns in the toolkit's message.
_ADVICE = (
    (r"No space left|Disk quota", "Free some space, or point RKZOO_CACHE at a larger disk."),
    (r"did not finish within", "Use fewer calibration pictures or the algorithm `normal`."),
    (
        r"lack of memory|MemoryError|bad_alloc|Cannot allocate",
        "Close other programs, build for one chip at a time, or use fewer calibration pictures.",
    ),
    (
        r"DecodeError|Error parsing message|not exists|IndexError|ModelProto",
        "Check that the file is a complete ONNX model, for example with `rkzoo inspect`.",
    ),
    (
        r"float NaN",
        "Look for NaN or infinite numbers in the model's weights and in what it makes of the"
        " calibration pictures.",
    ),
    (
        r"Integer (modulo|division) by zero",
        "The toolkit tries a model with numbers of its own: keep zeros from the divisor of whole"
        " numbers, for example with Max(divisor, 1), and export it again.",
    ),
    (
        r"Invalid operands name",
        "Name only tensors that the quantised model has; the toolkit renames and merges some.",
    ),
    (
        r"_dup'",
        "An output of the quantised graph is also read inside it, which the toolkit cannot"
        " handle: export the model without that.",
    ),
    (r"opset", "Export the model again with a lower opset, for example 12."),
    (
        r"needs real PyTorch",
        "Install the toolkit with PyTorch: rkzoo toolkit install --full.",
    ),
    (
        r"ShapeInferenceError|INVALID_GRAPH|Fatal error|is not a registered function",
        "The graph is faulty or has an operator that ONNX Runtime does not know; export it again.",
    ),
    (
        r"manually and try again",
        "End the model before that operator: rkzoo card new writes a card, whose `outputs` name"
        " the tensors at which it ends.",
    ),
)


def _advice(why: str) -> str:
    for pattern, fix in _ADVICE:
        if re.search(pattern, why):
            return fix
    return (
        "See the log for the operator: end the model before it with the `outputs` of a card"
        " (rkzoo card new), or try another --toolkit version."
    )


def _input(plan: InputPlan) -> dict[str, Any]:
    # All floats: the toolkit rejects a list that mixes them with integers.
    return {
        "name": plan.name,
        "shape": list(plan.shape),
        "mean": [float(value) for value in plan.mean],
        "std": [float(value) for value in plan.std],
    }


def _silent(text: str) -> None:
    pass


class _TimeoutReached(Exception):
    pass


class _Child:
    """The child process and our ends of the two pipes."""

    def __init__(self, env: ToolkitEnv, folder: Path, log: Path, script: Path) -> None:
        their_requests, self.requests = os.pipe()
        self.answers, their_answers = os.pipe()
        try:
            with os_errors_explained("The toolkit process cannot be started."):
                work, temporary = folder / "work", folder / "tmp"
                work.mkdir()
                temporary.mkdir()
                with log.open("ab") as out:
                    self.popen = _spawn(
                        [
                            *(str(env.python), "-I", "-u", "-X", "utf8", str(script)),
                            *map(str, (their_requests, their_answers, os.getpid())),
                        ],
                        cwd=work,
                        env=_environ(temporary),
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                        pass_fds=(their_requests, their_answers),
                        start_new_session=True,
                    )
        except BaseException:
            os.close(self.requests)
            os.close(self.answers)
            raise
        finally:
            os.close(their_requests)
            os.close(their_answers)
        import fcntl  # no Windows has it, and there this module is imported too

        for descriptor in (self.requests, self.answers):
            with contextlib.suppress(OSError):  # a smaller system limit only makes it slower
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
        os.set_blocking(self.requests, False)
        os.set_blocking(self.answers, False)

    def ended(self) -> bool:
        """Whether the child is dead; it is not reaped, so that its group id is not reused."""
        if self.popen.returncode is not None:
            return True
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.popen.pid, how) is not None
        except ChildProcessError:
            return True

    def wait(self) -> int:
        """The exit status; a child that closed its pipe but still runs is killed."""
        deadline = time.monotonic() + 5
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()
        return self.popen.wait()

    def kill(self) -> None:
        """Kill the child with all its descendants, and reap it."""
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def _environ(temporary: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"TMPDIR": str(temporary)}


def _dispose(child: _Child, folder: scratch.Scratch) -> None:
    child.kill()
    os.close(child.requests)
    os.close(child.answers)
    folder.remove()


class _Channel:
    """Reads and writes whole blocks until a deadline, polling the log in between."""

    def __init__(self, child: _Child, deadline: float, follow: _LogFollower) -> None:
        self._child, self._deadline, self._follow = child, deadline, follow

    def write(self, block: Any) -> None:
        view = memoryview(block)
        while view:
            self._wait(self._child.requests, select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._child.requests, view[:_PIPE]) :]

    def read(self, count: int) -> bytearray:
        whole = bytearray(count)
        view = memoryview(whole)
        while view:
            self._wait(self._child.answers, select.POLLIN)
            try:
                got = os.readv(self._child.answers, [view])
            except BlockingIOError:
                continue
            if not got:
                raise EOFError
            view = view[got:]
        return whole

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            if poll.poll(100):
                return
            self._follow.look()
            if self._child.ended() and not poll.poll(0):
                raise EOFError  # dead, with a descendant that holds the pipe open
            if time.monotonic() > self._deadline:
                raise _TimeoutReached


class _LogFollower:
    """Passes new log text to a callback."""

    def __init__(self, log: Path, begun: int, watch: Callable[[str], None]) -> None:
        self._log, self._at, self._watch = log, begun, watch

    def look(self) -> None:
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(self._at)
            new = file.read()
            self._at += len(new)
            if new:
                self._watch(new.decode("utf-8", "replace"))


# The toolkit's stages in order, with the percentage of the time at which each begins and ends.
_STAGES = {
    "Loading": (0, 5),
    "OpFusing 0": (5, 10),
    "OpFusing 1": (10, 15),
    "OpFusing 2": (15, 20),
    "GraphPreparing": (20, 25),
    "Quantizating": (25, 75),
    "rknn building": (75, 75),
    "rknn building done": (95, 95),
}
_BAR = re.compile(r"I ([A-Z]\w+(?: \d)?) ?:\s+(\d+)%\|")


class _Stages:
    """Merges the toolkit's many progress bars into one of 0..100 that never goes back."""

    def __init__(self, task: ProgressTask) -> None:
        self._task, self._at = task, 0.0

    def read(self, text: str) -> None:
        at = max((self._at, *_places(text)))
        if at > self._at:
            self._at = at
            self._task.update(at, 100)


class _Passes:
    """Merges one progress bar per image into one."""

    def __init__(self, task: ProgressTask, count: int) -> None:
        self._task, self._count, self._done, self._last = task, count, 0, 0

    def read(self, text: str) -> None:
        for percent in map(int, re.findall(r"I AccuracyAnalysing :\s+(\d+)%\|", text)):
            self._done += percent < self._last
            self._last = percent
        at = 100 * self._done + self._last
        self._task.update(min(at / self._count, 100), 100)


def _places(text: str) -> Iterator[float]:
    for name, percent in _BAR.findall(text):
        if name in _STAGES:
            low, high = _STAGES[name]
            yield low + (high - low) * int(percent) / 100
    for name in ("rknn building", "rknn building done"):
        if name in text:
            yield _STAGES[name][0]


# A child is tied to the life of the thread that started it (PR_SET_PDEATHSIG), so all are started
# by one thread that lives as long as the program.
_spawner: tuple[int, ThreadPoolExecutor] | None = None
_spawner_lock = threading.Lock()


def _spawn(arguments: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    global _spawner
    with _spawner_lock:
        if _spawner is None or _spawner[0] != os.getpid():
            _spawner = os.getpid(), ThreadPoolExecutor(1, "rkzoo-spawner")
        future: Future[subprocess.Popen[bytes]] = _spawner[1].submit(
            lambda: subprocess.Popen(arguments, **settings)
        )
    try:
        return future.result()
    except BaseException:
        future.add_done_callback(_kill_unclaimed)
        raise


def _kill_unclaimed(future: Future[subprocess.Popen[bytes]]) -> None:
    if not future.cancelled() and future.exception() is None:
        popen = future.result()
        popen.kill()
        popen.wait()
