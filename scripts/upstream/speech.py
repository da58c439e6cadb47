"""Speech recognisers, by their projects' own code."""

from __future__ import annotations

from pathlib import Path

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


NETWORKS = {
    "sensevoice-small": Network(
        _sensevoice, ("torch", "funasr"), "MIT", "https://arxiv.org/abs/2407.04051"
    ),
}
