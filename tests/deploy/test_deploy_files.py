"""Dockerfile, compose files and the systemd unit, read by parsers of other projects, and their
commands by rkzoo's own. Nothing here was started on a board."""

from __future__ import annotations

import argparse
import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rkzoo.cli.parser import build_parser
from rkzoo.serving.run import _GRACE
from rkzoo.soc.machine import CONTAINER_OPTIONS
from rkzoo.zoo.catalogue import names

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
HEALTH = "http://127.0.0.1:8000/v2/health/live"
TOKEN = "/run/secrets/rkzoo_token"


def parsed(command: list[str]) -> argparse.Namespace:
    """A command as rkzoo reads it; one that it does not know ends the test."""
    assert Path(command[0]).name == "rkzoo"
    return build_parser(["serve"]).parse_args(command[1:])


@pytest.fixture(scope="module")
def dockerfile() -> list[dict[str, Any]]:
    parser = pytest.importorskip("dockerfile_parse").DockerfileParser(str(DEPLOY / "Dockerfile"))
    structure: list[dict[str, Any]] = parser.structure
    return [line for line in structure if line["instruction"] != "COMMENT"]


def _values(dockerfile: list[dict[str, Any]], instruction: str) -> list[str]:
    return [line["value"] for line in dockerfile if line["instruction"] == instruction]


def _last(dockerfile: list[dict[str, Any]], instruction: str) -> Any:
    value = _values(dockerfile, instruction)[-1]
    return json.loads(value) if value.startswith("[") else value


def _service(name: str) -> dict[str, Any]:
    file = yaml.safe_load((DEPLOY / name).read_text())
    service: dict[str, Any] = file["services"]["rkzoo"]
    return service


# ---- the image ----------------------------------------------------------------------------


def test_the_image_runs_serve_as_nobody_in_particular(dockerfile: list[dict[str, Any]]) -> None:
    args = parsed(_last(dockerfile, "ENTRYPOINT") + _last(dockerfile, "CMD"))
    assert (args.host, args.port, args.token_file) == ("0.0.0.0", 8000, TOKEN)
    assert args.models == [_last(dockerfile, "WORKDIR")]
    user = _last(dockerfile, "USER")
    (run,) = [value for value in _values(dockerfile, "RUN") if "useradd" in value]
    assert user not in ("root", "0")
    assert user in shlex.split(run[run.index("useradd") : run.index("install -d")])
    order = [line["instruction"] for line in dockerfile]
    assert order.index("USER") > max(n for n, word in enumerate(order) if word == "RUN")
    assert _last(dockerfile, "STOPSIGNAL") == "SIGTERM"


def test_the_image_asks_the_server_whether_it_lives(dockerfile: list[dict[str, Any]]) -> None:
    (check,) = _values(dockerfile, "HEALTHCHECK")
    options, _, command = check.partition("CMD ")
    assert re.findall(r"--([a-z-]+)=\d+s", options) == ["interval", "timeout", "start-period"]
    python, flag, code = json.loads(command)
    assert (python, flag) == ("python", "-c")
    assert HEALTH in code
    compile(code, "HEALTHCHECK", "exec")


def test_the_image_is_built_of_what_the_package_needs(dockerfile: list[dict[str, Any]]) -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *(package.partition("/")[0] for package in wheel["packages"]),
        *wheel["force-include"],
        *wheel["shared-data"],
    }
    copies = [
        shlex.split(value)[:-1]
        for value in _values(dockerfile, "COPY")
        if not value.startswith("--from")
    ]
    copied = {source for sources in copies for source in sources}
    assert copied == needed
    assert all((ROOT / source).exists() for source in copied)
    kept = {
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert kept == needed
    extras = next(value for value in _values(dockerfile, "ARG")).partition("=")[2].split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])
    assert "serve" in extras


def test_no_library_of_rockchips_is_in_the_image(dockerfile: list[dict[str, Any]]) -> None:
    assert not [line for line in dockerfile if "rknnrt" in line["value"]]


# ---- compose ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compose.yaml", "compose.board.yaml"])
def test_the_compose_specification_knows_every_key(name: str) -> None:
    """The parser refuses keys and forms that the specification does not have."""
    compose = pytest.importorskip("compose_spec").PyCompose
    text = (DEPLOY / name).read_text()
    # Variables stand for values; the parser takes the file as it is after them.
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", "1", text)
    assert compose.from_yaml(text).service_names() == ["rkzoo"]
    with pytest.raises(ValueError, match="cap_dropped"):
        compose.from_yaml(text.replace("cap_drop:", "cap_dropped:"))


@pytest.mark.parametrize("name", ["compose.yaml", "compose.board.yaml"])
def test_a_container_may_do_no_more_than_it_has_to(name: str) -> None:
    service = _service(name)
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["build"]["context"] == ".."
    assert "cache:/cache" in service["volumes"]
    file = yaml.safe_load((DEPLOY / name).read_text())
    assert f"/run/secrets/{next(iter(file['secrets']))}" == TOKEN


def test_the_pc_needs_no_npu() -> None:
    service = _service("compose.yaml")
    args = parsed(["rkzoo", *service["command"]])
    assert (args.runtime, args.token_file, args.host) == ("onnx", TOKEN, "0.0.0.0")
    assert set(args.models) <= set(names())
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "devices" not in service


def test_the_board_gets_what_doctor_names() -> None:
    service = _service("compose.board.yaml")
    options = shlex.split(CONTAINER_OPTIONS.replace("(or /dev/rknpu)", ""))
    assert options == ["--device", "/dev/dri", "--security-opt", "systempaths=unconfined"]
    assert service["devices"] == ["/dev/dri:/dev/dri"]
    assert "systempaths=unconfined" in service["security_opt"]
    assert service["platform"] == "linux/arm64"
    assert "/usr/lib/librknnrt.so:/usr/lib/librknnrt.so:ro" in service["volumes"]
    assert "command" not in service  # the image's


# ---- systemd ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    class Listed(dict[str, Any]):
        """Keys of a unit may come several times."""

        def __setitem__(self, key: str, value: Any) -> None:
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(
        strict=False, dict_type=Listed, delimiters=("=",), comment_prefixes=("#",)
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "rkzoo-serve.service")
    return parser


def test_the_unit_starts_serve(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    environment = dict(line.split("=", 1) for line in service["Environment"].split("\n"))
    environment["CREDENTIALS_DIRECTORY"] = "/run/credentials/rkzoo-serve.service"
    command = re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], service["ExecStart"])
    args = parsed(shlex.split(command))
    assert args.host == "127.0.0.1"
    name = service["LoadCredential"].partition(":")[0]
    assert args.token_file == f"{environment['CREDENTIALS_DIRECTORY']}/{name}"
    assert environment["RKZOO_CACHE"] == f"/var/cache/{service['CacheDirectory']}"


def test_the_unit_lets_the_server_answer_what_it_took(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    # With systemd's default every worker gets the signal, and what it works on is lost.
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")
    assert int(service["TimeoutStopSec"]) > _GRACE
    assert service["Restart"] == "on-failure"
    for name in ("compose.yaml", "compose.board.yaml"):
        assert int(_service(name)["stop_grace_period"].rstrip("s")) > _GRACE


def test_the_unit_is_nobody_and_writes_nowhere(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["DynamicUser"] == service["ProtectHome"] == service["PrivateTmp"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["SupplementaryGroups"].split() == ["render", "video"]
    assert service["CapabilityBoundingSet"] == ""
    # These would take the NPU's device away.
    assert not {"PrivateDevices", "ProtectClock", "DevicePolicy"} & set(service)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_knows_every_key(tmp_path: Path) -> None:
    text = (DEPLOY / "rkzoo-serve.service").read_text()
    unit = tmp_path / "rkzoo-serve.service"

    def verified(text: str) -> str:
        unit.write_text(text.replace("/opt/rkzoo/bin/rkzoo", sys.executable))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    assert verified(text) == ""
    assert "'ProtectHouse'" in verified(text.replace("ProtectHome", "ProtectHouse"))
