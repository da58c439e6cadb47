"""Grapheme-to-phoneme conversion (G2P) of out-of-vocabulary words with a small GRU."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import open_file

# The alphabets of g2p-en's network, in embedding order.
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_OTHERS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH UW"
SOUNDS = sorted([vowel + stress for vowel in _VOWELS.split() for stress in "012"] + _OTHERS.split())
_FIRST_LETTER, _FIRST_SOUND = 3, 4
_OTHER, _WORD_END, _START, _END = 1, 2, 2, 3
_LONGEST = 60  # maximum number of phonemes, in case no end is generated

Array = NDArray[np.float32]
_SHAPES = {
    "enc_emb": (_FIRST_LETTER + 26, 256),
    "dec_emb": (_FIRST_SOUND + len(SOUNDS), 256),
    "fc_w": (_FIRST_SOUND + len(SOUNDS), 256),
    "fc_b": (_FIRST_SOUND + len(SOUNDS),),
    **{f"{side}_w_{of}h": (768, 256) for side in ("enc", "dec") for of in "ih"},
    **{f"{side}_b_{of}h": (768,) for side in ("enc", "dec") for of in "ih"},
}


class GraphemeToPhoneme:
    """g2p-en's network. Raises RkzooError where `path` is not its .npz file."""

    def __init__(self, path: Path) -> None:
        try:
            with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
                self._w = {name: np.asarray(arrays[name], np.float32) for name in _SHAPES}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise _damaged(path, str(error)) from error
        wrong = [name for name, shape in _SHAPES.items() if self._w[name].shape != shape]
        if wrong:
            raise _damaged(path, f"{wrong[0]} has the shape {self._w[wrong[0]].shape}.")

    def __call__(self, word: str) -> list[str]:
        """Return the phonemes of a word in ARPAbet, vowels with stress (0, 1, 2)."""
        state = np.zeros(256, np.float32)
        for letter in word.lower():
            index = ord(letter) - ord("a") + _FIRST_LETTER if "a" <= letter <= "z" else _OTHER
            state = self._step("enc", index, state)
        state = self._step("enc", _WORD_END, state)
        sounds: list[str] = []
        last = _START
        for _ in range(_LONGEST):
            state = self._step("dec", last, state)
            last = int((self._w["fc_w"] @ state + self._w["fc_b"]).argmax())
            if last == _END:
                break
            if last >= _FIRST_SOUND:
                sounds.append(SOUNDS[last - _FIRST_SOUND])
        return sounds

    def _step(self, side: str, index: int, state: Array) -> Array:
        """One step of a gated recurrent unit (GRU, https://arxiv.org/abs/1406.1078)."""
        w = self._w
        input_gates = w[f"{side}_w_ih"] @ w[f"{side}_emb"][index] + w[f"{side}_b_ih"]
        hidden_gates = w[f"{side}_w_hh"] @ state + w[f"{side}_b_hh"]
        reset, update = 1 / (1 + np.exp(-(input_gates[:512] + hidden_gates[:512]).reshape(2, 256)))
        new = np.tanh(input_gates[512:] + reset * hidden_gates[512:])
        return np.asarray((1 - update) * new + update * state, np.float32)


def _damaged(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path.name}, which says how unknown words are spoken, cannot be used.",
        why,
        "Fetch the voice again with rkzoo fetch.",
    )
