"""Networks that recognise faces: MobileFaceNet as upstream's own code exports it."""

from __future__ import annotations

from rkzoo.contract.vector import VectorHead
from rkzoo.graph.families.registry import recognise
from upstream_networks import network


def test_a_mobilefacenet_is_fed_as_arcface_trains_it() -> None:
    """112x112, RGB of -1..1 (https://arxiv.org/abs/1801.07698, 3.1: (pixel - 127.5) / 128)."""
    found = recognise(network("arcface-mobilefacenet"))
    image = found.contract.input
    assert found.contract.head == VectorHead(size=512)
    assert (image.size, image.color, image.mean) == ((112, 112), "RGB", (127.5,) * 3)
    assert (image.std, image.fit) == ((127.5,) * 3, "stretch")
    assert any("as for faces" in sentence for sentence in found.assumed)
