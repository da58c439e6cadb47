"""A file whose graph is two models: RTMO, whose classifier stays behind NMS."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from rkzoo.contract.pose import OneStagePoseHead
from rkzoo.errors import RkzooError
from rkzoo.workflow.request.models import find_models
from rkzoo.workflow.request.request import Request
from upstream_networks import network


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtmo") / "people.onnx"
    onnx.save(network("rtmo-t"), path)
    return path


def test_a_file_of_two_parts_is_a_pipeline(file: Path) -> None:
    models = find_models(str(file), Request())
    assert models.head == OneStagePoseHead(points=17)
    found = {role: (ready.name, bool(ready.cpu)) for role, ready in models}
    assert found == {
        "network": ("people", False),
        "classifier": ("people-classifier", True),
    }


def test_options_are_those_of_the_whole(file: Path) -> None:
    with pytest.raises(RkzooError, match="--classes does not go"):
        find_models(str(file), Request(classes=("person",)))
