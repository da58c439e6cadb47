"""Networks of human pose: RTMPose, RTMO and HRNet from OpenMMLab's mmpose, ViTPose from Hugging
Face's transformers.

mmpose 1.3 wants compiled operators and helpers that these networks do not use: they are stood in
for, so that the packages can be installed without what they depend on:

    pip install --no-deps mmpose==1.3.2 mmdet==3.3.0 mmengine mmcv-lite==2.1.0
    pip install addict yapf termcolor six terminaltables scipy matplotlib torch torchvision
"""

from __future__ import annotations

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


def _mmpose(config: str, size: tuple[int, int], names: list[str]) -> Any:
    def make(path: Path) -> None:
        sys.meta_path.insert(0, StandIns())  # type: ignore[arg-type]
        import mmpose
        import torch
        from mmengine import Config
        from mmengine.registry import init_default_scope
        from mmpose.registry import MODELS

        torch.manual_seed(0)
        folder = Path(mmpose.__file__).parent / ".mim/configs/body_2d_keypoint"
        settings = Config.fromfile(folder / config).model
        settings.pop("data_preprocessor", None)
        settings.pop("train_cfg", None)
        settings.backbone.pop("init_cfg", None)
        settings.backbone.norm_cfg = {"type": "BN"}
        init_default_scope("mmpose")
        import mmpose.models

        model = MODELS.build(settings).eval()
        for module in model.modules():
            # Statistics as of a network that was trained: else all answers are alike.
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)

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
    "vitpose-s": Network(
        _vitpose, ("torch", "transformers"), "Apache-2.0", "https://arxiv.org/abs/2204.12484"
    ),
}
