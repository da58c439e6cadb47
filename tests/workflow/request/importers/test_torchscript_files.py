"""TorchScript archives: made into ONNX in the environment that has PyTorch, which is also the
oracle. Skipped where that environment is not installed."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.toolkit import environment, worker
from rkzoo.workflow.request.importers import registry as makers
from rkzoo.workflow.request.importers.torchscript import (
    ScriptMetadata,
    input_size,
    is_script,
    script_metadata,
)
from rkzoo.workflow.request.resolve import resolve

# A classifier with padding that depends on its picture's shape, as TensorFlow's has.
_ORACLE = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from torch import nn

folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
import worker

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)
    def forward(self, x):
        h, w = x.shape[2], x.shape[3]
        x = nn.functional.pad(x, [0, (w + 1) % 2, 0, (h + 1) % 2])
        x = torch.relu(self.norm(self.first(x)))
        return self.last(x.mean(dim=[2, 3]))

class Two(nn.Module):
    def forward(self, x, y):
        return x + y

torch.manual_seed(1)
net = Net()
net.norm.running_mean.uniform_(-1, 1)
scripted = torch.jit.script(net.eval())
config = {"imgsz": [48, 64], "names": {0: "a", 1: "b", 2: "c", 3: "d's"}, "stride": 32}
scripted.save(folder / "net.torchscript", _extra_files={"config.txt": json.dumps(config)})
torch.save(net.state_dict(), folder / "weights.pt")
torch.jit.script(Two()).save(folder / "two.pt")
picture = torch.rand(1, 3, 48, 64)
np.savez(folder / "truth.npz", picture=picture, answer=scripted(picture).detach())
try:
    worker.export_script(str(folder / "two.pt"), {"images": [1, 3, 8, 8]}, str(folder / "two.onnx"))
except ValueError as error:
    (folder / "refusal.txt").write_text(str(error))
"""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory) -> Path:
    """A folder with archives and what PyTorch itself says."""
    env = environment.newest_installed("full")
    if env is None:
        pytest.skip("rkzoo toolkit install --full was not run here")
    folder = tmp_path_factory.mktemp("torch")
    toolkit = Path(worker.__file__).parent
    script = folder / "oracle.py"  # PyTorch reads the source of what it compiles
    script.write_text(_ORACLE)
    asked = [str(env.python), "-I", str(script), str(folder), str(toolkit)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.toolkit
def test_a_script_answers_as_pytorch_does(oracle: Path) -> None:
    truth = np.load(oracle / "truth.npz")
    ready = resolve(str(oracle / "net.torchscript"))
    assert ready.contract.input.size == (48, 64)
    assert ready.contract.labels == ("a", "b", "c", "d's")
    graph = ready.graph()
    assert not {"Shape", "If", "ConstantOfShape"} & {node.op_type for node in graph.graph.node}
    with OnnxSession(graph.SerializeToString()) as session:
        (answer,) = session.run([truth["picture"]])
    np.testing.assert_allclose(answer, truth["answer"], atol=1e-6)


@pytest.mark.toolkit
def test_programs_and_weights_are_told_apart(oracle: Path) -> None:
    assert is_script(oracle / "net.torchscript")
    assert is_script(oracle / "two.pt")
    assert not is_script(oracle / "weights.pt")
    assert not makers.is_model_file(str(oracle / "weights.pt"))
    assert not (oracle / "two.onnx").exists()
    assert "takes 2 inputs" in (oracle / "refusal.txt").read_text()


def _archive(path: Path, *names: str, config: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"net/{name}", b"x")
        if config is not None:
            archive.writestr("net/extra/config.txt", config)
    return path


SCRIPT = ("data.pkl", "code/__torch__.py", "constants.pkl")


def test_without_pytorch_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    script = _archive(tmp_path / "net.pt", *SCRIPT)
    assert main(["inspect", str(script)]) == 2
    told = capsys.readouterr().err
    assert "rkzoo toolkit install --full" in told
    assert "640x640 is assumed" in told
    assert not list((tmp_path / "cache" / "made").glob("*.onnx"))


def test_weights_alone_are_refused_with_the_way_to_export_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (
        _archive(tmp_path / "weights.pt", "data.pkl", "data/0"),
        _archive(tmp_path / "empty.pt"),
    ):
        assert main(["inspect", str(path)]) == 2
        assert "yolo export model=" in capsys.readouterr().err
    (tmp_path / "broken.torchscript").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(RkzooError, match="no TorchScript archive"):
        makers.as_onnx(tmp_path / "broken.torchscript")


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"imgsz": [0, 640]}',
        b'{"imgsz": [640, 99999999]}',
        b'{"imgsz": "640"}',
        b'{"names": {"a": "b"}}',
        b"[" * 100_000,
        b'{"imgsz": [64, 64], "x": "' + b" " * (1 << 20) + b'"}',
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path: Path, config: bytes) -> None:
    assert (
        script_metadata(_archive(tmp_path / "net.pt", *SCRIPT, config=config)) == ScriptMetadata()
    )


def test_the_size_is_what_was_asked_for_before_what_the_file_says(tmp_path: Path) -> None:
    config = json.dumps({"imgsz": [96, 32], "names": {"0": "x"}}).encode()
    script = _archive(tmp_path / "net.pt", *SCRIPT, config=config)
    assert input_size(script, (64, 64), SILENT) == (64, 64)
    assert input_size(script, None, SILENT) == (96, 32)
    assert script_metadata(script).names == {0: "x"}
