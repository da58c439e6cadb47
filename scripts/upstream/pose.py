"""Networks of human pose: RTMPose, RTMO and HRNet from OpenMMLab's mmpose, ViTPose from Hugging
Face's transformers.

mmpose 1.3 wants compiled operators and helpers that these networks do not use: they are stood in
for, so that the packages can be installed without what they depend on:

    pip install --no-deps mmpose==1.3.2 mmdet==3.3.0 mmengine mmcv-lite==2.1.0 mmdeploy==1.3.1
    pip install addict yapf termcolor six terminaltables scipy matplotlib torch torchvision
    pip install aenum dill multiprocess prettytable      (what mmdeploy needs, for RTMO)
"""

from __future__ import annotations

import importlib.util  # noqa: F401  mmdeploy takes it for imported
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from upstream import Network

_UNUSED = (
    "mmcv.ops",
    "xtcocotools",
    "json_tricks",
    "munkres",
    "chumpy",
    "pycocotools",
    "shapely",
)


class StandIns:
    """Finds an empty module for what is not used."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        unused = any(name == root or name.startswith(f"{root}.") for root in _UNUSED)
        return ModuleSpec(name, self, is_package=True) if unused else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        class Empty(ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return type(name, (), {})

        return Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _built(config: str) -> Any:
    """The network of a configuration, with random weights."""
    sys.meta_path.insert(0, StandIns())  # type: ignore[arg-type]
    import mmpose
    import torch
    from mmengine import Config
    from mmengine.registry import init_default_scope
    from mmpose.registry import MODELS

    torch.manual_seed(0)
    folder = Path(mmpose.__file__).parent / ".mim"
    settings = Config.fromfile(folder / "configs/body_2d_keypoint" / config).model
    for unused in ("data_preprocessor", "train_cfg", "init_cfg"):
        settings.pop(unused, None)
    settings.backbone.pop("init_cfg", None)
    if settings.backbone.get("norm_cfg", {}).get("type", "SyncBN") == "SyncBN":
        settings.backbone.norm_cfg = {"type": "BN"}
    init_default_scope("mmpose")
    import mmpose.models

    here = os.getcwd()
    os.chdir(folder)  # a loss reads a file of the data set's by its name there
    try:
        model = MODELS.build(settings).eval()
    finally:
        os.chdir(here)
    for module in model.modules():
        # Statistics as of a network that was trained: else all answers are alike.
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def _mmpose(config: str, size: tuple[int, int], names: list[str]) -> Any:
    def make(path: Path) -> None:
        model = _built(config)
        import torch

        class Outputs(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, image: Any) -> Any:
                features = self.model.backbone(image)
                if self.model.with_neck:
                    features = self.model.neck(features)
                return self.model.head.forward(features)

        torch.onnx.export(
            Outputs(),
            (torch.randn(1, 3, *size),),
            str(path),
            input_names=["input"],
            output_names=names,
            opset_version=11,
            dynamo=False,
        )

    return make


def _rtmo(config: str, side: int) -> Any:
    """As mmdeploy's pose-detection_rtmo_onnxruntime_dynamic.py exports it, NMS inside."""

    def make(path: Path) -> None:
        model = _built(config)
        import mmcv.ops
        import mmdeploy.codebase.mmpose.models
        import mmdeploy.mmcv.ops  # noqa: F401  both register what they rewrite
        import torch
        import torchvision
        from mmdeploy.core import RewriterContext
        from mmdeploy.utils import IR
        from mmengine import Config

        def nms(boxes: Any, scores: Any, iou: float, **options: Any) -> Any:
            kept = torch.nonzero(scores > options["score_threshold"])[:, 0]
            kept = kept[torchvision.ops.nms(boxes[kept], scores[kept], iou)]
            return None, kept[: options["max_num"]]

        mmcv.ops.nms = nms  # mmcv-lite has none
        names = ["dets", "keypoints"]
        settings = Config(
            {
                "backend_config": {"type": "onnxruntime"},
                "onnx_config": {
                    "type": "onnx",
                    "opset_version": 11,
                    "input_names": ["input"],
                    "output_names": names,
                    "dynamic_axes": {name: {0: "batch"} for name in ("input", *names)},
                },
                "codebase_config": {
                    "type": "mmpose",
                    "task": "PoseDetection",
                    "post_processing": {
                        "score_threshold": 0.05,
                        "iou_threshold": 0.5,
                        "max_output_boxes_per_class": 200,
                        "pre_top_k": 2000,
                        "keep_top_k": 50,
                        "background_label_id": -1,
                    },
                },
            }
        )
        # It is fed with 0..255: without statistics of these each layer would be ten times the last.
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        pictures = torch.rand(2, 3, side // 16, side // 16) * 255
        pictures = torch.nn.functional.interpolate(pictures, (side, side), mode="bilinear")
        with torch.no_grad():
            model.train().head.forward(model.neck(model.backbone(pictures)))
        for norm in norms:
            torch.nn.init.constant_(norm.weight, 0.6)  # for the weights are to be drawn again
        model.eval().switch_to_deploy()
        with RewriterContext(settings, "onnxruntime", IR.ONNX, opset=11), torch.no_grad():
            torch.onnx.export(
                model,
                (torch.randn(1, 3, side, side),),
                str(path),
                input_names=["input"],
                output_names=names,
                dynamic_axes=settings.onnx_config.dynamic_axes,
                opset_version=11,
                dynamo=False,
                autograd_inlining=False,
            )

    return make


def _vitpose(path: Path) -> None:
    import torch
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=12, image_size=(256, 192)
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True)
    model = VitPoseForPoseEstimation(config).eval()

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values).heatmaps

    torch.onnx.export(
        Outputs(),
        (torch.randn(1, 3, 256, 192),),
        str(path),
        input_names=["pixel_values"],
        output_names=["heatmaps"],
        opset_version=17,
        dynamo=False,
    )


_MM = ("mmpose==1.3.2", "mmdet==3.3.0", "mmengine", "mmcv-lite==2.1.0", "torch")
_PORTRAIT = (256, 192)

NETWORKS = {
    "rtmpose-s": Network(
        _mmpose(
            "rtmpose/body8/rtmpose-s_8xb256-420e_body8-256x192.py",
            _PORTRAIT,
            ["simcc_x", "simcc_y"],
        ),
        _MM,
        "Apache-2.0",
        "https://arxiv.org/abs/2303.07399",
    ),
    "hrnet-w32": Network(
        _mmpose(
            "topdown_heatmap/coco/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py",
            _PORTRAIT,
            ["heatmaps"],
        ),
        _MM,
        "Apache-2.0",
        "https://arxiv.org/abs/1902.09212",
    ),
    "rtmo-t": Network(
        _rtmo("rtmo/body7/rtmo-t_8xb32-600e_body7-416x416.py", 416),
        (*_MM, "mmdeploy==1.3.1"),
        "Apache-2.0",
        "https://arxiv.org/abs/2312.07526",
    ),
    "rtmo-s": Network(
        _rtmo("rtmo/body7/rtmo-s_8xb32-600e_body7-640x640.py", 640),
        (*_MM, "mmdeploy==1.3.1"),
        "Apache-2.0",
        "https://arxiv.org/abs/2312.07526",
    ),
    "vitpose-s": Network(
        _vitpose, ("torch", "transformers"), "Apache-2.0", "https://arxiv.org/abs/2204.12484"
    ),
}
