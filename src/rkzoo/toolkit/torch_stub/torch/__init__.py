"""Stub of PyTorch for rkzoo's lean toolkit environment.

RKNN-Toolkit2 imports torch whatever the input format, but for ONNX models it uses only
`torch.nn.Module`, `torch.no_grad`, (2.3.2) `torch.Tensor`, and, to reorder indices around a Split
(the attention of YOLO11), `arange`, `split`, `cat` and a few methods. This package is copied into
the environment's site-packages and saves a download of more than a gigabyte; anything else raises
an error that says so.
"""

import sys
from contextlib import ContextDecorator

import numpy as np

from . import nn
from .nn import ABSENT

__version__ = "0.0.0+rkzoo.stand.in"
__all__ = ["Tensor", "arange", "cat", "nn", "no_grad", "split"]


class Tensor(np.ndarray):
    """A numpy array with the methods of torch that are named differently."""

    def numpy(self) -> "np.ndarray":
        return np.asarray(self)

    def permute(self, *order: int) -> "Tensor":
        turned: Tensor = self.transpose(*order).view(Tensor)
        return turned

    def __getattr__(self, name: str) -> object:
        raise AttributeError(name if name.startswith("__") else ABSENT.format("Tensor." + name))


def arange(start: int, end: "int | None" = None, step: int = 1) -> Tensor:
    """Integers as int64: all that the toolkit needs."""
    first, last = (0, start) if end is None else (start, end)
    return np.arange(first, last, step, dtype=np.int64).view(Tensor)


def split(tensor: Tensor, sizes: "int | list[int]", dim: int = 0) -> "tuple[Tensor, ...]":
    """Parts of the given sizes along one axis; one size means equal parts and a remainder."""
    length = tensor.shape[dim]
    steps = [sizes] * -(-length // sizes) if isinstance(sizes, int) else sizes
    parts = np.split(tensor, np.cumsum(steps)[:-1], axis=dim)
    return tuple(part.view(Tensor) for part in parts)


def cat(tensors: "list[Tensor] | tuple[Tensor, ...]", dim: int = 0) -> Tensor:
    """Concatenate tensors along an axis."""
    return np.concatenate(tensors, axis=dim).view(Tensor)


class no_grad(ContextDecorator):  # noqa: N801 - torch's own name
    """Does nothing: there are no gradients here."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class _Explain:
    """Gives `import torch.something` the same error as `torch.something`."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.startswith("torch.") and name != "torch.nn":
            raise ModuleNotFoundError(ABSENT.format(name), name=name)


def __getattr__(name: str) -> object:
    raise AttributeError(name if name.startswith("__") else ABSENT.format("torch." + name))


sys.meta_path.append(_Explain())
