"""A simulated event camera: every pixel watches the logarithm of its intensity.

L = ln(I + ε).  A pixel remembers the level R of its last event. When L rises to R + θ_on it gives an event p = 1 and R
becomes R + θ_on; when it falls to R - θ_off, p = 0 and R - θ_off. Between two frames L is a straight line, and the
event gets the moment of the crossing. Each pixel has thresholds of its own, θ (1 + σ n) with a normal n. An event
within the refractory time after its pixel's last one is lost; R moves all the same. Background activity is a Poisson
process.

Source: Lichtsteiner, Posch and Delbrück, A 128×128 120 dB 15 µs Latency Asynchronous Temporal Contrast Vision Sensor
(IEEE JSSC 2008), for the pixel; Rebecq, Gehrig and Scaramuzza, ESIM: an Open Event Camera Simulator (CoRL 2018), for
the interpolation; Hu, Liu and Delbruck, v2e: From Video Frames to Realistic DVS Events (CVPRW 2021), for mismatch and
noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from spikecore.errors import DatasetError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import Events


@dataclass(frozen=True)
class Camera:
    """Turns videos into events.

    Args:
        threshold: θ_on = θ_off, in units of L.
        mismatch: σ, relative spread of the thresholds between pixels.
        refractory_us: dead time of a pixel after an event.
        noise_hz: background events per pixel and second, of either polarity.
        epsilon: ε, keeps the logarithm finite.
    """

    threshold: Annotated[float, Range(gt=0.0)] = 0.25
    mismatch: Annotated[float, Range(ge=0.0)] = 0.0
    refractory_us: Annotated[int, Range(ge=0)] = 0
    noise_hz: Annotated[float, Range(ge=0.0)] = 0.0
    epsilon: Annotated[float, Range(gt=0.0)] = 0.001

    def record(self, frames: Iterable[np.ndarray], times_us: np.ndarray, rng: np.random.Generator) -> list[Events]:
        """What the camera sees.

        Args:
            frames: intensities `[B, H, W]` of B videos, one array per moment, not negative.
            times_us: the moments, rising.
            rng: of thresholds and noise.

        Returns:
            The events of each video.
        """
        times = np.asarray(times_us, np.float64)
        before, memory, pieces, thresholds = None, np.empty(0), [], (np.empty(0), np.empty(0))
        for step, frame in enumerate(frames):
            if not np.isfinite(frame).all() or frame.min(initial=0) < 0:
                raise DatasetError(f"frame {step} holds intensities that are negative or not finite")
            level = np.log(np.asarray(frame, np.float64) + self.epsilon)
            if before is None:
                shape, before, memory = level.shape, level, level.copy()
                thresholds = self._thresholds(shape[1:], rng), self._thresholds(shape[1:], rng)
                continue
            for polarity, sign in ((1, 1.0), (0, -1.0)):
                theta = thresholds[polarity]
                # A hair of slack: a change of exactly n θ makes n events, whatever was rounded on the way.
                crossings = np.floor(sign * (level - memory) / theta + 1e-9)
                hit = np.flatnonzero(crossings > 0)
                if not len(hit):
                    continue
                number = crossings.reshape(-1)[hit].astype(np.int64)
                place = np.repeat(hit, number)
                rank = np.arange(len(place)) - np.repeat(np.cumsum(number) - number, number) + 1
                flat_theta = np.broadcast_to(theta, shape).reshape(-1)[place]
                target = memory.reshape(-1)[place] + sign * rank * flat_theta
                start, stop = before.reshape(-1)[place], level.reshape(-1)[place]
                share = np.clip((target - start) / np.where(stop == start, 1.0, stop - start), 0.0, 1.0)
                moment = times[step - 1] + share * (times[step] - times[step - 1])
                pieces.append((place, moment, np.full(len(place), polarity, np.uint8)))
                memory.reshape(-1)[hit] += sign * number * np.broadcast_to(theta, shape).reshape(-1)[hit]
            before = level
        if before is None:
            raise DatasetError("a video needs at least one frame")
        if self.noise_hz:
            pieces.append(self._noise(shape, times, rng))
        return self._assemble(pieces, shape)

    def _thresholds(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        spread = 1 + self.mismatch * rng.standard_normal(shape)
        return self.threshold * np.maximum(spread, 0.1)  # never none at all

    def _noise(self, shape: tuple[int, ...], times: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        span = float(times[-1] - times[0])
        counts = rng.poisson(self.noise_hz * span * 1e-6, int(np.prod(shape)))
        place = np.repeat(np.arange(len(counts)), counts)
        return place, times[0] + rng.random(len(place)) * span, rng.integers(0, 2, len(place)).astype(np.uint8)

    def _assemble(self, pieces: list[tuple[np.ndarray, ...]], shape: tuple[int, ...]) -> list[Events]:
        count, height, width = shape
        if not pieces:
            pieces = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8))]
        place, moment, polarity = (np.concatenate(column) for column in zip(*pieces, strict=True))
        t = np.rint(moment).astype(np.int64)
        if self.refractory_us:
            keep = _after_dead_time(place, t, self.refractory_us)
            place, t, polarity = place[keep], t[keep], polarity[keep]
        video = place // (height * width)
        order = np.lexsort((place, t, video))
        place, t, polarity, video = place[order], t[order], polarity[order], video[order]
        x, y = (place % width).astype(np.uint16), (place // width % height).astype(np.uint16)
        ends = np.searchsorted(video, np.arange(count + 1))
        whole = Events(t, x, y, polarity)
        return [whole[ends[i] : ends[i + 1]] for i in range(count)]


def _after_dead_time(place: np.ndarray, t: np.ndarray, dead_us: int) -> np.ndarray:
    """Positions of the events that are not within the dead time of one of their pixel that is kept."""
    order = np.lexsort((t, place))
    place, t = place[order], t[order]
    if not len(t):
        return order
    span = int(t.max() - t.min()) + dead_us + 1
    key = place * span + (t - t.min())
    now = np.flatnonzero(np.diff(place, prepend=-1))
    keep = np.zeros(len(t), bool)
    while len(now):
        keep[now] = True
        later = np.searchsorted(key, key[now] + dead_us)
        inside = later < len(key)
        now, later = now[inside], later[inside]
        now = later[place[later] == place[now]]
    return order[keep]
