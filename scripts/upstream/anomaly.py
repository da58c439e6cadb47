"""Anomaly detectors, from anomalib, exported as it does: with its own scaling of pixels and of
scores inside, and what exceeds the threshold beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from upstream import Network


def _export(make: Callable[[], Any], path: Path) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    create = timm.create_model

    def untrained(*arguments: Any, **options: Any) -> Any:
        return create(*arguments, **options | {"pretrained": False})

    timm.create_model = untrained  # the trained backbone would be downloaded
    try:
        model = make().eval()
    finally:
        timm.create_model = create
    with torch.no_grad():
        found = model.model(model.pre_processor(torch.rand(4, 3, 256, 256)))
        # As if these four pictures had been its validation data.
        for name, values in (("image", found.pred_score), ("pixel", found.anomaly_map)):
            for word, value in (
                ("min", values.min()),
                ("max", values.max()),
                ("threshold", values.mean()),
            ):
                buffer = f"_{name}_threshold" if word == "threshold" else f"{name}_{word}"
                setattr(model.post_processor, buffer, value.clone())
    torch.onnx.export(
        model,
        (torch.rand(1, 3, 256, 256),),
        str(path),
        input_names=["input"],
        output_names=["pred_score", "pred_label", "anomaly_map", "pred_mask"],
        opset_version=18,
        dynamo=True,
    )


def _stfpm(path: Path) -> None:
    def make() -> Any:
        from anomalib.models import Stfpm

        return Stfpm(evaluator=False, visualizer=False)

    _export(make, path)


def _efficient_ad(path: Path) -> None:
    def make() -> Any:
        from anomalib.models import EfficientAd

        return EfficientAd(evaluator=False, visualizer=False)

    _export(make, path)


_NEEDS = ("torch", "timm", "anomalib")
NETWORKS = {
    "stfpm": Network(_stfpm, _NEEDS, "Apache-2.0", "https://arxiv.org/abs/2103.04257"),
    "efficientad": Network(_efficient_ad, _NEEDS, "Apache-2.0", "https://arxiv.org/abs/2303.14535"),
}
