"""Mel spectra against librosa and closed forms; Tonic's datasets where Tonic is installed."""

import contextlib
import os
import random

import numpy as np
import pytest
from published import sine, wav

from spikecore import create
from spikecore.errors import DatasetError, PluginUnavailable
from spikecore_datasets_dvs import tonic_bridge
from spikecore_datasets_dvs.audio import HOP, RATE_HZ, WINDOW, mel_spectrum, mel_weights, read_wav


def test_a_tone_is_loudest_in_its_band():
    weights = mel_weights(40, 20.0)
    spectrum = mel_spectrum(sine(1000.0), weights)
    assert spectrum.shape == (1 + (RATE_HZ - WINDOW) // HOP, 40)
    centres = np.arange(WINDOW // 2 + 1)[weights.argmax(1)] * RATE_HZ / WINDOW
    assert abs(centres[spectrum[50].argmax()] - 1000) < 80
    # The energy of a sine of amplitude a under a Hann window of N samples: its peak bin holds (a N / 4)².
    whole = mel_spectrum(sine(1000.0), np.eye(WINDOW // 2 + 1), epsilon=0.0 + 1e-12)
    assert np.exp(whole[50, 25]) == pytest.approx((0.5 * WINDOW / 4) ** 2, rel=1e-3)


def test_triangles_have_height_one_and_overlap_to_one():
    weights = mel_weights(8, 100.0, size=16_000)
    assert weights.max(1) == pytest.approx(np.ones(8), abs=0.01)
    inside = slice(int(weights[0].argmax()), int(weights[-1].argmax()))
    assert weights.sum(0)[inside] == pytest.approx(np.ones(inside.stop - inside.start), abs=1e-9)


def test_it_equals_librosas():
    if not os.environ.get("SPIKE_FULL"):
        pytest.skip("librosa takes a minute to compile its parts: SPIKE_FULL=1 runs this")
    librosa = pytest.importorskip("librosa")
    x = np.random.default_rng(0).normal(0, 0.1, RATE_HZ)
    options = {"sr": RATE_HZ, "n_fft": WINDOW, "hop_length": HOP, "n_mels": 40, "fmin": 20.0, "fmax": 8000.0}
    theirs = librosa.feature.melspectrogram(y=x, htk=True, norm=None, center=False, **options)
    ours = np.exp(mel_spectrum(x, mel_weights(40, 20.0), epsilon=1e-12))
    np.testing.assert_allclose(ours, theirs.T, rtol=2e-3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has 0 bytes"),
        (b"RIFF\0\0\0\0WAVE", "sound .wav"),
        (wav(sine(100), rate=8000), r"\(1, 2, 16000\) was expected"),
        (wav(sine(100), channels=2), r"\(2, 2, 16000\)"),
    ],
)
def test_sounds_that_are_none(tmp_path, content, says):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=says):
        read_wav(path)
    assert len(read_wav(_written(tmp_path / "b.wav", wav(sine(100, 77))))) == 77


def test_any_damage_to_a_sound_is_an_error_of_ours_or_another_sound(tmp_path):
    whole, rng, path = wav(sine(100, 300)), random.Random(0), tmp_path / "a.wav"
    num_whole = 0
    for _ in range(1500):
        raw = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.15 else whole)
        for _ in range(rng.choice([1, 1, 2, 4]) if raw else 0):
            raw[rng.randrange(min(len(raw), 60))] = rng.choice([0, 1, 127, 128, 255])
        path.write_bytes(raw)
        with contextlib.suppress(DatasetError):
            assert np.abs(read_wav(path)).max(initial=0) <= 1
            num_whole += 1
    assert 100 < num_whole < 1400


def _written(path, content):
    path.write_bytes(content)
    return path


def test_without_tonic_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(tonic_bridge, "find_spec", lambda name: None)
    with pytest.raises(PluginUnavailable, match=r"pip install 'spikecore-datasets-dvs\[tonic\]'"):
        create("dataset", "tonic:NMNIST")


def test_tonic_is_not_imported_unless_asked_for():
    import subprocess
    import sys

    code = "import sys, spikecore.registry as r; r.load('dataset', 'tonic:NMNIST'); assert 'tonic' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
