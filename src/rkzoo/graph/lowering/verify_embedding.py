"""Equivalence check of a graph that was cut at its embedding: both run on the same pictures in ONNX
Runtime."""

from __future__ import annotations

import numpy as np
import onnx

from rkzoo.contract.inputs import ImageInput
from rkzoo.graph.families.tokens import embedding_output
from rkzoo.graph.onnx.rewrite import picture_as_floats
from rkzoo.graph.onnx.unrounded import unrounded
from rkzoo.graph.onnx.view import prepared, run_whole


def verify_embedding(
    original: onnx.ModelProto, graph: onnx.ModelProto, image: ImageInput, seed: int = 0
) -> float | None:
    """Run both graphs in ONNX Runtime and compare their embeddings.

    Args:
        original: The uncut model.
        graph: The model that ends with the embedding, 1xN.
        image: How it is fed.
        seed: Seed of the test pictures.

    Returns:
        The largest difference, relative to the largest number; None where nothing was cut.
    """
    whole = picture_as_floats(unrounded(original), image.size)
    names = {tensor.name for tensor in whole.graph.initializer}
    picture = next(info.name for info in whole.graph.input if info.name not in names)
    shape = (1, image.channels, *image.size)
    view = prepared(whole, {picture: shape})
    found = embedding_output(view)
    if found is None or (not found.pooled and len(view.model.graph.output) == 1):
        return None
    place = [output.name for output in view.model.graph.output].index(found.name)
    chance = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(2):
        fed = {picture: chance.normal(size=shape).astype(np.float32)}
        expected = run_whole(view.model, fed)[place]
        if found.pooled:
            expected = expected[:, 0] if found.pooled == "first" else expected.mean(axis=1)
        actual = run_whole(unrounded(graph), fed)[0]
        scale = max(float(np.abs(expected).max()), 1e-12)
        # np.maximum propagates a NaN, which passes no limit.
        differs = np.abs(actual.ravel() - expected.ravel()).max() / scale
        worst = float(np.maximum(worst, differs))
    return worst
