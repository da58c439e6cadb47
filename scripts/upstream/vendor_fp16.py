"""Networks that Rockchip publishes speeds of in FP16, of their sizes there, by the code of
transformers and timm. The two translators are of `torch.nn`, in the sizes of their configuration.

Which part and which sizes is what the vendor's export scripts say (airockchip/rknn_model_zoo).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upstream import Network

OPSET = 12


def _export(
    path: Path,
    module: Any,
    example: Sequence[Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int = OPSET,
) -> None:
    import torch

    torch.onnx.export(
        module.eval(),
        tuple(example),
        str(path),
        input_names=list(inputs),
        output_names=list(outputs),
        opset_version=opset,
        dynamo=False,
    )


def _named(network: Any, call: Any) -> Any:
    """A module that calls `network` by `call(network, *inputs)`."""
    import torch

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs):  # type: ignore[no-untyped-def]
            return call(self.network, *inputs)

    return Called()


def _clip_image(path: Path) -> None:
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(projection_dim=512, attn_implementation="eager")
    network = CLIPVisionModelWithProjection(config)
    module = _named(network, lambda n, x: _unit(n(x).image_embeds))
    example = (torch.randn(1, 3, 224, 224),)
    _export(path, module, example, ["pixel_values"], ["image_embeds"], 18)


def _unit(x: Any) -> Any:
    return x / x.norm(p=2, dim=-1, keepdim=True)


def _clip_text(path: Path) -> None:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    # Its authors' configuration says 2, by which the last word is found with ArgMax.
    config = CLIPTextConfig(eos_token_id=2, projection_dim=512, attn_implementation="eager")
    network = CLIPTextModelWithProjection(config)
    module = _named(network, lambda n, x: _unit(n(x).text_embeds))
    example = (torch.randint(2, 100, (1, 20)),)
    _export(path, module, example, ["input_ids"], ["text_embeds"], 18)


def _wav2vec2(path: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    network = Wav2Vec2ForCTC(Wav2Vec2Config(attn_implementation="eager"))
    torch.nn.utils.parametrize.remove_parametrizations(
        network.wav2vec2.encoder.pos_conv_embed.conv, "weight"
    )
    module = _named(network, lambda n, x: n(x).logits)
    _export(path, module, (torch.randn(1, 320000),), ["input"], ["output"])


def _whisper() -> Any:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=51865,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_source_positions=1000,
        use_cache=False,
        attn_implementation="eager",
    )
    return WhisperForConditionalGeneration(config)


def _whisper_encoder(path: Path) -> None:
    import torch

    module = _named(_whisper().model.encoder, lambda n, x: n(x).last_hidden_state)
    _export(path, module, (torch.randn(1, 80, 2000),), ["x"], ["out"])


def _whisper_decoder(path: Path) -> None:
    """Twelve tokens at once, without caches."""
    import torch

    network = _whisper()

    def answer(n: Any, tokens: Any, audio: Any) -> Any:
        mask = torch.full((12, 12), -10000.0).triu(1)[None, None]
        hidden = n.model.decoder(
            tokens, encoder_hidden_states=audio, attention_mask=mask, use_cache=False
        )
        return n.proj_out(hidden.last_hidden_state)

    example = (torch.randint(0, 100, (1, 12)), torch.randn(1, 1000, 512))
    _export(path, _named(network, answer), example, ["tokens", "audio"], ["out"])


def _mms() -> Any:
    import torch
    from transformers import VitsConfig, VitsModel

    torch.manual_seed(0)
    network = VitsModel(VitsConfig(attn_implementation="eager")).eval()
    for module in network.modules():
        for name in ("weight",):
            if torch.nn.utils.parametrize.is_parametrized(module, name):
                torch.nn.utils.parametrize.remove_parametrizations(module, name)
    return network


def _mms_encoder(path: Path) -> None:
    """The text encoder, without the small network of durations, whose boolean indices the toolkit
    does not build and the vendor's fork replaces."""
    import torch

    def answer(n: Any, ids: Any, mask: Any) -> Any:
        padding = mask[..., None].float()
        text = n.text_encoder(input_ids=ids, padding_mask=padding, attention_mask=mask)
        return text.last_hidden_state, text.prior_means, text.prior_log_variances

    example = torch.randint(0, 38, (1, 200)), torch.ones(1, 200, dtype=torch.int64)
    outputs = ["hidden", "prior_means", "prior_log_variances"]
    _export(path, _named(_mms(), answer), example, ["input_ids", "attention_mask"], outputs)


def _mms_decoder(path: Path) -> None:
    import torch

    noise = torch.randn(1, 192, 400)

    def answer(n: Any, attn: Any, mask: Any, means: Any, variances: Any) -> Any:
        means = torch.matmul(attn.squeeze(1), means).transpose(1, 2)
        variances = torch.matmul(attn.squeeze(1), variances).transpose(1, 2)
        latents = means + noise * torch.exp(variances) * n.noise_scale
        latents = n.flow(latents, mask, None, reverse=True)
        return n.decoder(latents * mask, None).squeeze(1)

    example = (
        torch.ones(1, 1, 400, 200),
        torch.ones(1, 1, 400),
        torch.randn(1, 200, 192),
        torch.randn(1, 200, 192),
    )
    inputs = ["attn", "output_padding_mask", "prior_means", "prior_log_variances"]
    _export(path, _named(_mms(), answer), example, inputs, ["waveform"])


def _mobilesam_encoder(path: Path) -> None:
    """TinyViT of 5 million, whose last stage keeps the size, and SAM's neck."""
    import torch
    from timm.models.tiny_vit import TinyVit

    torch.manual_seed(0)
    body = TinyVit(
        num_classes=0,
        embed_dims=(64, 128, 160, 320),
        depths=(2, 2, 6, 2),
        num_heads=(2, 4, 5, 10),
        window_sizes=(7, 7, 14, 7),
    )
    # The one change: the last merging of patches has a stride of 1.
    body.stages[-1].downsample.conv2.conv.stride = (1, 1)
    neck = torch.nn.Sequential(
        torch.nn.Conv2d(320, 256, 1, bias=False),
        _ChannelNorm.make(256),
        torch.nn.Conv2d(256, 256, 3, padding=1, bias=False),
        _ChannelNorm.make(256),
    )
    for module in body.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    network = torch.nn.ModuleList([body, neck])

    def answer(n: Any, x: Any) -> Any:
        x = n[0].patch_embed(x)
        for stage in n[0].stages:
            x = stage(x)
        return n[1](x)

    module = _named(network, answer)
    _export(path, module, (torch.randn(1, 3, 448, 448),), ["images"], ["image_embeddings"])


class _ChannelNorm:
    @staticmethod
    def make(channels: int) -> Any:
        import torch

        class ChannelNorm(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(channels))
                self.bias = torch.nn.Parameter(torch.zeros(channels))

            def forward(self, x):  # type: ignore[no-untyped-def]
                mean = x.mean(1, keepdim=True)
                away = x - mean
                x = away / torch.sqrt((away * away).mean(1, keepdim=True) + 1e-6)
                return x * self.weight[:, None, None] + self.bias[:, None, None]

        return ChannelNorm()


def _mobilesam_decoder(path: Path) -> None:
    import torch
    from transformers import SamConfig, SamModel, SamVisionConfig

    torch.manual_seed(0)
    vision = SamVisionConfig(image_size=448, num_hidden_layers=1)
    config = SamConfig(vision_config=vision.to_dict(), attn_implementation="eager")
    config.prompt_encoder_config.image_size = 448
    config.prompt_encoder_config.image_embedding_size = 28
    network = SamModel(config)

    def answer(n: Any, embedding: Any, coords: Any, labels: Any, mask: Any, has: Any) -> Any:
        prompts = n.prompt_encoder
        coords = (coords + 0.5)[:, None] / 448
        points = prompts.shared_embedding(coords)
        labels = labels[:, None, :, None]
        points = points * (labels != -1)
        points = points + prompts.not_a_point_embed.weight * (labels == -1)
        for kind, one in enumerate(prompts.point_embed):
            points = points + one.weight * (labels == kind)
        empty = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = has * prompts.mask_embed(mask) + (1 - has) * empty
        masks, scores = n.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=n.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=points,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )[:2]
        return scores[:, 0], masks[:, 0]

    shapes = {
        "image_embeddings": (1, 256, 28, 28),
        "point_coords": (1, 2, 2),
        "point_labels": (1, 2),
        "mask_input": (1, 1, 112, 112),
        "has_mask_input": (1,),
    }
    example = [torch.ones(shape) for shape in shapes.values()]
    outputs = ["iou_predictions", "low_res_masks"]
    _export(path, _named(network, answer), example, list(shapes), outputs)


def _attention(width: int, heads: int) -> Any:
    import torch

    class Attention(torch.nn.Module):
        """Multi-head attention of one sentence, (length, 1, width), as fairseq computes it."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (torch.nn.Linear(width, width) for _ in range(4))

        def split(self, x):  # type: ignore[no-untyped-def]
            return x.reshape(-1, heads, width // heads).transpose(0, 1)

        def forward(self, x, y, mask, past=None):  # type: ignore[no-untyped-def]
            q = self.split(self.q(x) * (width // heads) ** -0.5)
            k, v = self.split(self.k(y)), self.split(self.v(y))
            if past is not None:
                k = torch.cat([past[0][0], k], dim=1)
                v = torch.cat([past[1][0], v], dim=1)
            weights = torch.bmm(q, k.transpose(1, 2)) + mask * -10000.0
            seen = torch.bmm(torch.softmax(weights, dim=-1), v)
            seen = self.out(seen.transpose(0, 1).reshape(-1, 1, width))
            return seen, k[None], v[None]

    return Attention()


def _lite_layer(decodes: bool, width: int = 256, heads: int = 4, inner: int = 256) -> Any:
    """A layer that normalises after each part, of the vendor's configs/rk_nmt.yml."""
    import torch

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = _attention(width, heads)
            self.other = _attention(width, heads) if decodes else None
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(3))
            self.up, self.down = torch.nn.Linear(width, inner), torch.nn.Linear(inner, width)

        def forward(self, x, mask, past=None, heard=None, heard_mask=None):  # type: ignore[no-untyped-def]
            seen, k, v = self.own(x, x, mask, past)
            x = self.norms[0](x + seen)
            if self.other is not None:
                x = self.norms[1](x + self.other(x, heard, heard_mask)[0])
            x = self.norms[2](x + self.down(torch.relu(self.up(x))))
            return x, k, v

    return Layer()


def _lite_encoder(path: Path) -> None:
    import torch

    torch.manual_seed(0)
    layers = torch.nn.ModuleList(_lite_layer(False) for _ in range(5))

    def answer(n: Any, x: Any, mask: Any) -> Any:
        x = x.transpose(0, 1)
        for layer in n:
            x = layer(x, mask)[0]
        return x.transpose(0, 1)

    example = torch.randn(1, 16, 256), torch.zeros(1, 16, 16)
    names = ["x", "encoder_padding_mask"]
    _export(path, _named(layers, answer), example, names, ["encoder_output"])


def _lite_decoder(path: Path) -> None:
    import torch

    torch.manual_seed(0)
    layers = torch.nn.ModuleList(_lite_layer(True) for _ in range(3))
    network = torch.nn.ModuleList([layers, torch.nn.Linear(256, 36808, bias=False)])

    def answer(n: Any, x: Any, heard: Any, heard_mask: Any, mask: Any, *past: Any) -> Any:
        x, heard, kept = x.transpose(0, 1), heard.transpose(0, 1), []
        for i, layer in enumerate(n[0]):
            x, *new = layer(x, mask, past[2 * i : 2 * i + 2], heard, heard_mask)
            kept += new
        return (n[1](x.transpose(0, 1)), *kept)

    caches = [f"prev_{kind}{i}" for i in range(3) for kind in ("key", "value")]
    example = [torch.randn(1, 1, 256), torch.randn(1, 16, 256), torch.zeros(1, 16)]
    example += [torch.zeros(1, 16), *(torch.randn(1, 4, 15, 64) for _ in caches)]
    names = ["prev_output_tokens", "encoder_out", "encoder_padding_mask", "decoder_pading_mask"]
    outputs = ["decoder_output", *(name.replace("prev", "save") for name in caches)]
    _export(path, _named(network, answer), example, names + caches, outputs)


def _yamnet(path: Path) -> None:
    """MobileNet v1 on the six patches of three seconds. The vendor's graph makes the spectrum, too,
    which RKNN-Toolkit2 2.5.0 had not built in half an hour here."""
    import torch

    torch.manual_seed(0)
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    body, before = [_conv_norm(1, 32, 3, 2)], 32
    for after, stride in [*rows, (1024, 2), (1024, 1)]:
        body += [_conv_norm(before, before, 3, stride, before), _conv_norm(before, after, 1, 1)]
        before = after
    network = torch.nn.ModuleList([torch.nn.Sequential(*body), torch.nn.Linear(1024, 521)])
    module = _named(network, lambda n, x: n[1](n[0](x).mean((2, 3))).sigmoid())
    _export(path, module, (torch.randn(6, 1, 96, 64),), ["patches"], ["scores"])


def _conv_norm(before: int, after: int, size: int, stride: int, groups: int = 1) -> Any:
    import torch

    return torch.nn.Sequential(
        torch.nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False),
        torch.nn.BatchNorm2d(after),
        torch.nn.ReLU(),
    )


def _zipformer_encoder(path: Path) -> None:
    """The small bilingual model: 103 frames, and 35 caches, of which all are outputs again."""
    import torch
    from scaling_converter import convert_scaled_to_non_scaled
    from zipformer import Zipformer

    torch.manual_seed(0)
    five = lambda value: (value,) * 5  # noqa: E731
    network = Zipformer(
        num_features=80,
        encoder_dims=five(256),
        attention_dim=five(192),
        encoder_unmasked_dims=five(192),
        zipformer_downsampling_factors=(1, 2, 4, 8, 2),
        nhead=five(4),
        feedforward_dim=five(768),
        num_encoder_layers=five(2),
        cnn_module_kernels=five(31),
        decode_chunk_size=48,
        num_left_chunks=4,
    )
    convert_scaled_to_non_scaled(network, inplace=True)
    network.eval()
    pair = torch.nn.ModuleList([network, torch.nn.Linear(256, 512)])
    caches = network.get_init_state()

    def answer(n: Any, x: Any, *states: Any) -> Any:
        lengths = torch.full((1,), 103, dtype=torch.int64)
        heard, _, new = n[0].streaming_forward(x=x, x_lens=lengths, states=list(states))
        return (n[1](heard), *new)

    kinds = ("len", "avg", "key", "val", "val2", "conv1", "conv2")
    names = [f"cached_{kind}_{i}" for kind in kinds for i in range(5)]
    outputs = ["encoder_out", *(f"new_{name}" for name in names)]
    example = [torch.rand(1, 103, 80), *caches]
    _export(path, _named(pair, answer), example, ["x", *names], outputs, 13)


def _zipformer_decoder(path: Path) -> None:
    """Two tokens, as icefall's stateless predictor: a table and a convolution over both."""
    import torch

    torch.manual_seed(0)
    table, mix = torch.nn.Embedding(6254, 512), torch.nn.Conv1d(512, 512, 2, groups=128, bias=False)
    network = torch.nn.ModuleList([table, mix, torch.nn.Linear(512, 512)])

    def answer(n: Any, y: Any) -> Any:
        seen = torch.relu(n[1](n[0](y).transpose(1, 2)).transpose(1, 2))
        return n[2](seen.squeeze(1))

    example = (torch.zeros(1, 2, dtype=torch.int64),)
    _export(path, _named(network, answer), example, ["y"], ["decoder_out"])


def _zipformer_joiner(path: Path) -> None:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Linear(512, 6254)
    module = _named(network, lambda n, a, b: n(torch.tanh(a + b)))
    example = torch.randn(1, 512), torch.randn(1, 512)
    _export(path, module, example, ["encoder_out", "decoder_out"], ["logit"])


_NEEDS = ("torch", "transformers")
_CLIP = "https://arxiv.org/abs/2103.00020"
_MMS = "https://arxiv.org/abs/2305.13516"
_SAM = "https://arxiv.org/abs/2306.14289"
_LITE = "https://github.com/airockchip/lite-transformer"
_ZIPFORMER = "https://huggingface.co/pfluo/k2fsa-zipformer-bilingual-zh-en-t"
_WHISPER = "https://arxiv.org/abs/2212.04356"
NETWORKS = {
    "clip-image": Network(_clip_image, _NEEDS, "Apache-2.0", _CLIP),
    "clip-text": Network(_clip_text, _NEEDS, "Apache-2.0", _CLIP),
    "wav2vec2-20s": Network(_wav2vec2, _NEEDS, "Apache-2.0", "https://arxiv.org/abs/2006.11477"),
    "whisper-20s-encoder": Network(_whisper_encoder, _NEEDS, "Apache-2.0", _WHISPER),
    "whisper-20s-decoder": Network(_whisper_decoder, _NEEDS, "Apache-2.0", _WHISPER),
    "mms-tts-200-encoder": Network(_mms_encoder, _NEEDS, "Apache-2.0", _MMS),
    "mms-tts-200-decoder": Network(_mms_decoder, _NEEDS, "Apache-2.0", _MMS),
    "mobilesam-encoder": Network(_mobilesam_encoder, ("torch", "timm"), "Apache-2.0", _SAM),
    "mobilesam-decoder": Network(_mobilesam_decoder, _NEEDS, "Apache-2.0", _SAM),
    "lite-transformer-encoder": Network(_lite_encoder, ("torch",), "BSD-3-Clause", _LITE),
    "lite-transformer-decoder": Network(_lite_decoder, ("torch",), "BSD-3-Clause", _LITE),
    "zipformer-zh-en-encoder": Network(
        _zipformer_encoder,
        ("torch", "icefall/egs/librispeech/ASR/pruned_transducer_stateless7_streaming"),
        "Apache-2.0",
        _ZIPFORMER,
    ),
    "zipformer-zh-en-decoder": Network(_zipformer_decoder, ("torch",), "BSD-3-Clause", _ZIPFORMER),
    "zipformer-zh-en-joiner": Network(_zipformer_joiner, ("torch",), "BSD-3-Clause", _ZIPFORMER),
    "yamnet-network-3s": Network(
        _yamnet, ("torch",), "BSD-3-Clause", "https://arxiv.org/abs/1609.09430"
    ),
}
