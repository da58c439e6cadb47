"""What FunASR itself answers with a small Paraformer, for the tests
(tests/tasks/paraformer_answers.npz).

    python scripts/paraformer_answers.py

Run it where torch and funasr are. The network is small and random, made and exported by FunASR's
own code; kept are it, features, and what FunASR's network makes of them before it is exported; what
its integrate-and-fire makes of drawn frames; and how it writes tokens as text.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from funasr.models.paraformer.cif_predictor import cif_v1
from funasr.utils.postprocess_utils import sentence_postprocess
from upstream.speech import export_paraformer, paraformer_model

OUT = Path(__file__).parents[1] / "tests/tasks/paraformer_answers.npz"
ROWS = 40
TEXTS = (
    ("我", "hel@@", "lo", "world", "你", "abc"),
    ("a@@", "b", "cd", "<unk>", "e"),
    ("你", "好"),
    ("中", "ab", "3", "号"),
)


def main() -> None:
    answers: dict[str, np.ndarray] = {}
    model = paraformer_model(size=16, units=16, classes=40)
    rows = torch.randn(ROWS, 560)
    with torch.no_grad():
        memory, count = model.encode(rows[None], torch.tensor([ROWS], dtype=torch.int32))
        tokens, said, *_ = model.calc_predictor(memory, count)
        said = said.round().long()
        scores, _ = model.cal_decoder_with_predictor(memory, count, tokens, said)
    answers["rows"], answers["scores"] = rows.numpy(), scores[0, : said[0]].numpy()
    drawn, share = torch.randn(1, 60, 8), torch.rand(1, 60) * 0.6
    with torch.no_grad():
        ended = torch.cat([drawn, torch.zeros(1, 1, 8)], 1)
        tail = torch.cat([share, torch.full((1, 1), 0.45)], 1)
        fired, _ = cif_v1(ended, tail, 1.0)
    count = int(tail.sum())
    answers |= {"memory": drawn[0].numpy(), "shares": share[0].numpy()}
    answers["embeddings"] = fired[0, :count].numpy()
    answers["tokens"] = np.array([" ".join(words) for words in TEXTS])
    answers["texts"] = np.array([sentence_postprocess(list(words))[0] for words in TEXTS])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_paraformer(model, path)
        answers["model"] = np.frombuffer(path.read_bytes(), np.uint8)
    np.savez_compressed(OUT, **answers)
    print(OUT.stat().st_size, "bytes;", scores.shape[1], "and", count, "tokens")


if __name__ == "__main__":
    main()
