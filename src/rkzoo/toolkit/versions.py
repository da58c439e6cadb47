"""Toolkit releases that rkzoo can install, and the contents of their environments."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from rkzoo.errors import RkzooError


@dataclass(frozen=True)
class Release:
    """A release on PyPI, with the Python versions and machines it has wheels for."""

    version: str
    pythons: tuple[tuple[int, int], ...] = ((3, 8), (3, 9), (3, 10), (3, 11), (3, 12))
    machines: tuple[str, ...] = ("x86_64", "aarch64")


RELEASES = (
    Release("2.5.0"),
    Release("2.3.2"),
    Release("2.3.0"),
    Release("2.2.0", pythons=((3, 9), (3, 10), (3, 11), (3, 12)), machines=("x86_64",)),
)

# The same for every release, limited to tested versions: newer ones break the toolkit (setuptools
# without pkg_resources, numpy 2) or its simulator may round differently.
REQUIREMENTS = (
    "numpy<=1.26.4",
    "onnx>=1.16.1,<=1.18.0",
    "onnxruntime>=1.17,<1.27",
    "protobuf>=4.21.6,<=4.25.4",
    "opencv-python-headless>=4.5.5.64,<4.12",
    "setuptools<80",
    "scipy>=1.9.3",
    "tqdm>=4.64.1",
    "psutil>=5.9.0",
    "fast-histogram>=0.11",
    "ruamel.yaml>=0.17.21",
)

# Declared by the toolkit and not wanted: headless OpenCV replaces the other one.
NEVER = "python_version < '0'"
EXCLUDED = (f"opencv-python; {NEVER}",)
_WITHOUT_TORCH = (f"torch; {NEVER}",)


@dataclass(frozen=True)
class Kind:
    """Contents of an environment beside the toolkit.

    Attributes:
        name: Its name.
        size: Its size, as text.
        needs: Bytes that must be free.
        title: For messages.
        packages: Installed beside the toolkit.
        overrides: Replace requirements of these packages and the toolkit.
        torch: Whether it holds the real PyTorch; else the stub.
        python: Lowest Python version that the packages have wheels for.
    """

    name: str
    size: str
    needs: int
    title: str = ""
    packages: tuple[str, ...] = ()
    overrides: tuple[str, ...] = _WITHOUT_TORCH
    torch: bool = False
    python: tuple[int, int] = (3, 8)


# The order matters: where only the toolkit is needed, the first one installed is used.
KINDS = {
    kind.name: kind
    for kind in (
        Kind("lean", "about 0.6 GB", 700_000_000),
        Kind(
            "full",
            "about 1.5 GB, or up to 6 GB where only CUDA PyTorch is offered",
            1_600_000_000,
            title=" with PyTorch",
            # 2.13 is the newest version tested; it works in spite of the wheel's own upper limit.
            overrides=("torch>=1.13,<2.14",),
            torch=True,
        ),
        Kind(
            "tensorflow",
            "about 1.8 GB",
            1_900_000_000,
            title=" with TensorFlow",
            # 2.20 lacks the TFLite interpreter that tf2onnx needs.
            packages=(
                "tensorflow-cpu==2.19.1; platform_machine == 'x86_64'",
                "tensorflow==2.19.1; platform_machine != 'x86_64'",
                "tf2onnx==1.16.1",
            ),
            python=(3, 9),
        ),
    )
}

LAYOUT = 2
"""Increase it when the contents of an environment change: older ones are rebuilt then."""


def release(version: str) -> Release:
    """The release called `version` ("2.5.0" or "v2.5.0"). Raises RkzooError when unknown."""
    requested = version.strip().lower().removeprefix("v")
    for known in RELEASES:
        if known.version == requested:
            return known
    names = [known.version for known in RELEASES]
    near = difflib.get_close_matches(requested, names, 1, 0.5)
    raise RkzooError(
        f"There is no RKNN-Toolkit2 version {version!r} that rkzoo knows.",
        f"Known versions: {', '.join(names)}.",
        f"Did you mean {near[0]}?" if near else "Choose the one that matches your board's runtime.",
    )
