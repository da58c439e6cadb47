"""What models promise that do not answer with something seen in a picture: those that hear,
speak, translate or compare, and the parts of pipelines."""

from __future__ import annotations

from rkzoo.strict import Strict


class TensorsHead(Strict, frozen=True, tag="tensors", tag_field="kind"):
    """One part of a pipeline: plain tensors, which the pipeline's task reads by their names."""
