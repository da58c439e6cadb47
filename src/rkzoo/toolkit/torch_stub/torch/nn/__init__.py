"""torch.nn, as far as the toolkit's class definitions need it."""

ABSENT = (
    "{} needs real PyTorch, which this lean toolkit environment leaves out:"
    " rkzoo toolkit install --full"
)


class Module:
    """A base class without any function."""


def __getattr__(name: str) -> object:
    raise AttributeError(name if name.startswith("__") else ABSENT.format("torch.nn." + name))
