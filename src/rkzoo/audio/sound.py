"""Audio file input and output."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, files_in, open_file, os_errors_explained
from rkzoo.native_output import without_library_lines

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})
_LONGEST = 6 * 3600  # seconds; the header of a small file can claim far more
_UNKNOWN = 0x7FFF0000  # length of samples, in bytes, from which on a header says nothing
_ESTIMATE = 0.02
_RATES = range(1000, 768_001)

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """Mono audio: float32 (N,) in -1..1, `rate` samples per second."""

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Samples:
        """Samples at another rate, resampled (soxr) where it differs."""
        if rate == self.rate:
            return self.samples
        import soxr

        return np.asarray(soxr.resample(self.samples, self.rate, rate), np.float32)


def expand(names: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs to audio files. Raises RkzooError where one matches
    nothing.
    """
    paths: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            files = files_in(path, SUFFIXES)
        elif path.exists():
            files = [path]
        else:
            files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not files:
            raise RkzooError(
                f"There is no sound at {name}.",
                f"Files of the kinds {', '.join(sorted(SUFFIXES))} are read.",
                "Check the path.",
            )
        paths += files
    return paths


def read(path: Path | str) -> Sound:
    """Read an audio file; channels are averaged.

    Raises:
        RkzooError: missing, empty, longer than six hours, or not audio.
    """
    path = Path(path)
    with os_errors_explained(f"The sound {path} cannot be read."), open_file(path) as file:
        return _read(file, path)


def decode(data: bytes, path: Path) -> Sound:
    """As `read`, from the file's bytes; `path` is for messages only."""
    return _read(io.BytesIO(data), path)


def _read(file: BinaryIO, path: Path) -> Sound:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise RkzooError(
            "Sounds cannot be read here.",
            f"The package soundfile is not installed ({error}).",
            'Install it with: pip install "rkzoo[audio]"',
        ) from error
    _check_whole_wav(file, path)
    try:
        with without_library_lines(), soundfile.SoundFile(file) as sound:
            rate, frames = sound.samplerate, sound.frames
            if rate not in _RATES or frames > _LONGEST * rate:
                raise RkzooError(
                    f"The sound {path} cannot be read.",
                    f"It claims {frames} samples, {rate} a second.",
                    "Cut it into pieces of at most six hours.",
                )
            samples = sound.read(dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise RkzooError(
            f"{path} is not a sound file that can be read.",
            f"{str(error).rsplit(': ', 1)[-1].strip().rstrip('.')}.",
            "Give a WAV, FLAC, OGG or MP3 file.",
        ) from error
    # The length of an MP3 may be an estimate.
    if frames - len(samples) > max(frames * _ESTIMATE, rate // 5):
        raise _cut_short(path, f"{frames / rate:.1f} s", f"{len(samples) / rate:.1f}")
    if not len(samples):
        raise RkzooError(
            f"The sound {path} is empty.",
            "No sample of it can be read.",
            "Record it, or copy it, again.",
        )
    mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise RkzooError(
            f"The sound {path} cannot be used.",
            "It holds samples that are not finite.",
            "Convert it to 16-bit WAV.",
        )
    return Sound(mono, rate)


def _check_whole_wav(file: BinaryIO, path: Path) -> None:
    """Raise RkzooError for a WAV or AIFF that ends before its samples do, which libsndfile
    takes as it is. A size that says nothing, as programs write that do not know it yet, is no such
    thing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"FORM" and size + 64 < 8 + int.from_bytes(head[4:8], "big") < _UNKNOWN:
        raise _cut_short(path, f"{int.from_bytes(head[4:8], 'big')} bytes", f"{size}")
    second = 0
    while head[:4] == b"RIFF" and len(chunk := file.read(8)) == 8:
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"fmt ":
            second = int.from_bytes(file.read(16)[8:12], "little")
            file.seek(-16, os.SEEK_CUR)
        there = size - file.tell()
        if name == b"data":
            # An odd chunk may lack its padding, and some writers its last sample.
            if second and there + 64 < length < _UNKNOWN:
                raise _cut_short(path, f"{length / second:.1f} s", f"{there / second:.1f}")
            break
        if file.seek(length + length % 2, os.SEEK_CUR) >= size:
            break
    file.seek(0)


def _cut_short(path: Path, said: str, there: str) -> RkzooError:
    return RkzooError(
        f"{path} is cut short or damaged.",
        f"It says that it has {said}, and {there} can be read.",
        "Copy or download it again, or save what is there under another name in an audio editor.",
    )


# By suffix: libsndfile's format and subtype, and the rate of a format that has its own.
_WRITTEN: dict[str, tuple[str, str | None, int | None]] = {
    ".wav": ("WAV", None, None),
    ".flac": ("FLAC", None, None),
    ".ogg": ("OGG", None, None),
    ".mp3": ("MP3", None, None),
    ".opus": ("OGG", "OPUS", 24_000),
    ".pcm": ("RAW", "PCM_16", 24_000),
}
WRITTEN = frozenset(_WRITTEN)
"""Suffixes that `write` takes. `.pcm` is bare samples, 16-bit little-endian at 24 kHz."""


def write(path: Path, sound: Sound) -> None:
    """Write a sound in the format of the suffix, one of WRITTEN; samples are clipped to -1..1.

    Raises:
        RkzooError: another suffix, a format that this libsndfile lacks, or the file cannot be
            written.
    """
    import soundfile

    if path.suffix.lower() not in _WRITTEN:
        raise RkzooError(
            f"{path} cannot be written.",
            f"Sounds are written as {', '.join(_WRITTEN)}.",
            "Give another name.",
        )
    format_, subtype, rate = _WRITTEN[path.suffix.lower()]
    rate = rate or sound.rate
    samples = np.clip(sound.at(rate), -1, 1)
    endian = "LITTLE" if format_ == "RAW" else None
    with atomic_output(path) as part, part.open("wb") as file:
        try:
            with soundfile.SoundFile(file, "w", rate, 1, subtype, endian, format_) as out:
                # libsndfile's Vorbis ends the process where it is given minutes at once.
                for at in range(0, len(samples), rate):
                    out.write(samples[at : at + rate])
        except (ValueError, soundfile.SoundFileError) as error:
            raise RkzooError(
                f"{path} cannot be written.",
                f"The library for sounds says: {str(error).rstrip('.')}.",
                "Write a .wav, or install a newer libsndfile.",
            ) from error
