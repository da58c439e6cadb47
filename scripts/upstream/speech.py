"""Speech recognisers, by their projects' own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from upstream import Network


def _sensevoice(path: Path) -> None:
    """SenseVoice-Small as FunASR exports it, with 3 of its 70 layers, which are all alike."""
    import torch
    from funasr.models.sense_voice.export_meta import export_rebuild_model
    from funasr.models.sense_voice.model import SenseVoiceSmall

    torch.manual_seed(0)
    model = SenseVoiceSmall(
        encoder="SenseVoiceEncoderSmall",
        encoder_conf={
            "output_size": 512,
            "attention_heads": 4,
            "linear_units": 2048,
            "num_blocks": 2,
            "tp_blocks": 1,
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
        },
        input_size=560,
        vocab_size=25055,
        length_normalized_loss=True,
    ).eval()
    with torch.no_grad():
        model.ctc.ctc_lo.weight *= 20  # scores that differ
    model = export_rebuild_model(model, device="cpu", max_seq_len=512)
    _export(model, path)


def _export(model: Any, path: Path) -> None:
    """A model that FunASR rebuilt for export."""
    import torch

    torch.onnx.export(
        model,
        model.export_dummy_inputs(),
        str(path),
        input_names=model.export_input_names(),
        output_names=model.export_output_names(),
        dynamic_axes=model.export_dynamic_axes(),
        opset_version=14,
        dynamo=False,
    )


def _paraformer(path: Path) -> None:
    """Paraformer-large as FunASR exports it, with 2 of its 50 and 2 of its 16 layers."""
    export_paraformer(paraformer_model(), path)


def export_paraformer(model: Any, path: Path) -> None:
    """By FunASR's own code; `model` is changed."""
    from funasr.models.paraformer.export_meta import export_rebuild_model

    model = export_rebuild_model(
        model,
        encoder="SANMEncoder",
        decoder="ParaformerSANMDecoder",
        predictor="CifPredictorV2",
        device="cpu",
        max_seq_len=512,
    )
    _export(model, path)


def paraformer_model(size: int = 512, units: int = 2048, classes: int = 8404) -> Any:
    """FunASR's Paraformer with random weights, about a token in four frames, and scores that
    differ."""
    import torch
    from funasr.models.paraformer.model import Paraformer

    torch.manual_seed(0)
    layers = {
        "attention_heads": 4,
        "linear_units": units,
        "num_blocks": 2,
        "kernel_size": 11,
        "sanm_shfit": 0,
    }
    model = Paraformer(
        encoder="SANMEncoder",
        encoder_conf={
            **layers,
            "output_size": size,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "selfattention_layer_type": "sanm",
        },
        decoder="ParaformerSANMDecoder",
        decoder_conf={**layers, "att_layer_num": 2},
        predictor="CifPredictorV2",
        predictor_conf={
            "idim": size,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        input_size=560,
        vocab_size=classes,
        ctc_weight=0.0,
        length_normalized_loss=True,
        predictor_bias=1,
    ).eval()
    with torch.no_grad():
        model.predictor.cif_output.bias -= 1
        model.predictor.cif_output.weight *= 2
        model.decoder.output_layer.weight *= 20
    return model


NETWORKS = {
    "sensevoice-small": Network(
        _sensevoice, ("torch", "funasr"), "MIT", "https://arxiv.org/abs/2407.04051"
    ),
    "paraformer": Network(
        _paraformer, ("torch", "funasr"), "MIT", "https://arxiv.org/abs/2206.08317"
    ),
}
