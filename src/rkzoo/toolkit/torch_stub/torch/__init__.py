"""A stand-in for PyTorch in rkzoo's lean toolkit environment.

RKNN-Toolkit2 imports torch whatever the input format, but for ONNX models it touches
only `torch.nn.Module`, `torch.no_grad` and (2.3.2) `torch.Tensor`. This package is copied
into the environment's site-packages and saves a download of more than a gigabyte;
anything else that is asked of it says so.
"""

import sys
from contextlib import ContextDecorator

from . import nn
from .nn import ABSENT

__version__ = "0.0.0+rkzoo.stand.in"
__all__ = ["Tensor", "nn", "no_grad"]


class Tensor:
    """Named in annotations, never made."""


class no_grad(ContextDecorator):  # noqa: N801 - torch's own name
    """Does nothing: there are no gradients here."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _Explain:
    """Gives `import torch.something` the same message as `torch.something`."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.startswith("torch.") and name != "torch.nn":
            raise ModuleNotFoundError(ABSENT.format(name), name=name)


def __getattr__(name: str) -> object:
    raise AttributeError(name if name.startswith("__") else ABSENT.format("torch." + name))


sys.meta_path.append(_Explain())
