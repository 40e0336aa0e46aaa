"""Speech Commands as mel spectra: `[T, num_mels]`, one step per hop.

M[t, m] = ln(Σ_f w[m, f] |X[t, f]|² + ε),  X the Fourier transform of 25 ms under a Hann window every 10 ms

w: triangles of height 1 on the mel scale, mel(f) = 2595 log10(1 + f / 700), from `low_hz` to half the sampling rate.

Source: Davis and Mermelstein, Comparison of Parametric Representations (IEEE TASSP 1980); O'Shaughnessy 1987.
Parity: librosa's `feature.melspectrogram(htk=True, norm=None, center=False)` (tests/test_audio.py).
"""

from __future__ import annotations

import wave
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from spikecore.errors import DatasetError
from spikecore.interfaces import Range
from spikecore_datasets_dvs import declarations
from spikecore_datasets_dvs.dataset import Recording
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import reading_errors
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.named import NamedDataset, text, the_directory
from spikecore_datasets_dvs.representations import Frames

RATE_HZ = 16_000
WINDOW, HOP = 400, 160
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}


def mel_weights(num_mels: int, low_hz: float, size: int = WINDOW, rate_hz: int = RATE_HZ) -> np.ndarray:
    """`[num_mels, size // 2 + 1]`: the triangles."""

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 2595 * np.log10(1 + np.asarray(hz) / 700)

    corners = 700 * (10 ** (np.linspace(mel(low_hz), mel(rate_hz / 2), num_mels + 2) / 2595) - 1)
    hz = np.arange(size // 2 + 1) * rate_hz / size
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    weights: np.ndarray = np.maximum(0, np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)))
    return weights


def mel_spectrum(samples: np.ndarray, weights: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    """`[T, num_mels]`, float32.

    Args:
        samples: of the sound, from -1 to 1; at least one window.
        weights: of `mel_weights`.
        epsilon: keeps the logarithm finite.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return np.log(power @ weights.T + epsilon).astype(np.float32)


def read_wav(path: Path) -> np.ndarray:
    """The samples of a 16-bit mono file of 16 kHz, from -1 to 1.

    Raises:
        DatasetError: it is damaged or of another kind.
    """
    try:
        # `opened` refuses a pipe; `wave` closes no file that it is given.
        with reading_errors(path), opened(path) as source, wave.open(source, "rb") as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            if kind != (1, 2, RATE_HZ):
                raise DatasetError(f"{path}: has channels, bytes and rate {kind}; (1, 2, {RATE_HZ}) was expected")
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError, ValueError) as error:  # RuntimeError: a chunk ends before it begins
        raise DatasetError(f"{path}: is not a sound .wav file: {error}") from error
    return np.frombuffer(raw[: len(raw) // 2 * 2], "<i2") / 32768.0


class SpeechCommands(NamedDataset):
    """Speech Commands v0.02 as mel spectra of one second, `[98, num_mels]`; the split of the lists in the archive."""

    name: ClassVar[str] = "speech-commands"
    info = declarations.SPEECH_COMMANDS
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    present: ClassVar[tuple[str, ...]] = ("testing_list.txt", "*/testing_list.txt")

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            num_mels: bands.
            low_hz: lowest frequency.
            representation, transforms, augment: of events; not for sound.
        """

        num_mels: Annotated[int, Range(ge=1, le=200)] = 40
        low_hz: Annotated[float, Range(ge=0.0, lt=8000.0)] = 20.0

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """What changes events is not for sounds."""
        for option, plain in (("representation", Frames()), ("transforms", ()), ("augment", ())):
            if getattr(config, option) != plain:
                yield option, "is not for SpeechCommands, which holds no events: leave it out"

    def _check(self) -> None:
        """There is no sensor, whose size a transform could miss."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """`(num_mels,)`."""
        return (self.config.num_mels,)

    def recordings(self, directory: Path) -> dict[str, list[Recording]]:
        top = next(path for pattern in self.present for path in sorted(directory.glob(pattern))).parent
        halves = {}
        for split, name in LISTS.items():
            halves[split] = set(text(top / name, "list of the split").split())
        by_split: dict[str, list[Recording]] = {split: [] for split in self.splits}
        for label, word in enumerate(self.info.classes):
            for path in sorted(the_directory(top, word, depth=2).glob("*.wav")):
                key = f"{word}/{path.name}"
                split = next((split for split in LISTS if key in halves[split]), "train")
                by_split[split].append(Recording(path.relative_to(directory).as_posix(), label))
        return self.counted(by_split)

    def read(self, directory: Path, recording: Recording) -> Events:
        raise DatasetError("Speech Commands holds sounds, not events")

    def integrate(self, directory: Path, recording: Recording) -> np.ndarray:
        """The spectrum of a recording, cut or filled with silence to one second."""
        samples = read_wav(directory / recording.path)[:RATE_HZ]
        return mel_spectrum(np.pad(samples, (0, RATE_HZ - len(samples))), self._weights)

    @cached_property
    def _weights(self) -> np.ndarray:
        return mel_weights(self.config.num_mels, self.config.low_hz)

    def reading_options(self) -> Any:
        return [self.config.num_mels, self.config.low_hz]
