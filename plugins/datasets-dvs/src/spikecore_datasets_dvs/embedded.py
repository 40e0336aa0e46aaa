"""Event data that need no download: simulated on first use, the same everywhere, and kept on the disk.

ndigits       core's handwritten digits, moved through the three saccades of N-MNIST before a simulated camera
moving-bars   a bar crosses the picture; where it goes is the class. Every pixel sees it pass once, whatever the class,
              so counts tell nothing: only the order in time does
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from spikecore import create
from spikecore.datasets import data_dir, make_directory
from spikecore.interfaces import DatasetCapabilities, DatasetInfo, Range
from spikecore_datasets_dvs import packed
from spikecore_datasets_dvs.camera import Camera
from spikecore_datasets_dvs.dataset import EventDataset, Recording
from spikecore_datasets_dvs.events import Events

CHUNK = 128
"""Videos simulated at a time."""


class Simulated(EventDataset):
    """Base: `simulate(split)` gives the events and the label of every sample."""

    capabilities: ClassVar[DatasetCapabilities] = dataclasses.replace(
        EventDataset.capabilities,
        embedded=True,
        same_samples=(*EventDataset.capabilities.same_samples, "root"),  # where they are kept, once they are simulated
    )
    version: ClassVar[int] = 1
    """Raised when the simulation changes, so that old data are not taken for new ones."""

    def simulate(self, split: str) -> Iterator[tuple[Events, int]]:
        """The samples of a split."""
        raise NotImplementedError

    def variant(self) -> str:
        """Of the data: what is simulated depends on it."""
        return f"v{self.version}"

    def prepare(self) -> Path:
        def make(aside: Path) -> None:
            for split in self.splits:
                (aside / split).mkdir()
                packed.write(aside / split, self.simulate(split))

        root = self.directory if self.config.root else data_dir() / self.name
        return make_directory(root / self.variant(), make)

    def recordings(self, directory: Path) -> dict[str, list[Recording]]:
        by_split = {}
        for split in self.splits:
            labels = packed.Packed(directory / split).labels
            path = f"{split}/{packed.EVENTS}"
            by_split[split] = [Recording(path, label, item=i) for i, label in enumerate(labels)]
        return by_split

    def read(self, directory: Path, recording: Recording) -> Events:
        split = Path(recording.path).parent.name
        opened: dict[tuple[Path, str], packed.Packed] = self._opened
        if (directory, split) not in opened:
            opened[directory, split] = packed.Packed(directory / split)
        return opened[directory, split][recording.item]

    @cached_property
    def _opened(self) -> dict[tuple[Path, str], packed.Packed]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_opened"}


def saccade(time_us: float, amplitude: float, saccade_us: float = 100_000.0) -> tuple[float, float]:
    """Where the picture is, in pixels `(x, y)`, on its way along a triangle; one side per saccade.

    Source: Orchard et al. 2015, 2.1 (three saccades of 100 ms along an isosceles triangle).
    """
    corners = np.array([(-0.5, -0.5), (0.0, 0.5), (0.5, -0.5), (-0.5, -0.5)]) * amplitude
    side = min(int(time_us // saccade_us), 2)
    share = min(time_us / saccade_us - side, 1.0)
    x, y = corners[side] * (1 - share) + corners[side + 1] * share
    return float(x), float(y)


class NDigits(Simulated):
    """Core's digits as an event camera sees them while it makes N-MNIST's saccades; `[T, 2, 24, 24]`."""

    name: ClassVar[str] = "ndigits"
    size: ClassVar[int] = 24
    camera: ClassVar[Camera] = Camera(threshold=0.6, mismatch=0.05, refractory_us=1_000, noise_hz=0.5, epsilon=0.1)
    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Handwritten digits before a simulated event camera",
        classes=tuple("0123456789"),
        sample_shape=(None, 2, 24, 24),
        licence="CC BY 4.0 (the digits)",
        citation="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49; "
        "saccades after G. Orchard et al., Frontiers in Neuroscience 2015",
        homepage="https://archive.ics.uci.edu/dataset/80",
        notes="Simulated (see spikecore_datasets_dvs.camera), not recorded: figures do not compare with N-MNIST's. "
        "The split is that of the dataset `digits` with its default options.",
        sensor_size=(24, 24),
        num_samples=(("train", 1438), ("test", 359)),
    )

    def simulate(self, split: str) -> Iterator[tuple[Events, int]]:
        """Each digit, twice as large, on a sensor of 24 × 24; 300 ms in 75 frames."""
        samples = create("dataset", "digits").split(split)
        images, labels = samples.images[:, 0].numpy().astype(np.float64), samples.labels.tolist()
        times = np.linspace(0, 300_000, 76)
        places = [saccade(time, amplitude=8.0) for time in times]
        rng = np.random.default_rng([1, self.splits.index(split)])
        for start in range(0, len(images), CHUNK):
            part = images[start : start + CHUNK]
            frames = (self._moved(part, x, y) for x, y in places)
            recorded = self.camera.record(frames, times, rng)
            yield from zip(recorded, labels[start : start + CHUNK], strict=True)

    def _moved(self, images: np.ndarray, x: float, y: float) -> np.ndarray:
        """Images `[B, 8, 8]`, scaled by 2 (linear interpolation), in the middle of the sensor, moved by (x, y)."""
        return self._weights(y) @ images @ self._weights(x).T

    def _weights(self, shift: float) -> np.ndarray:
        pixels = (np.arange(self.size) - (self.size - 1) / 2 - shift) / 2 + 3.5
        return np.maximum(0.0, 1 - np.abs(pixels[:, None] - np.arange(8)))


class MovingBars(Simulated):
    """A bar, bright or dark, crosses the picture to the right, left, down or up; `[T, 2, 16, 16]`."""

    name: ClassVar[str] = "moving-bars"
    size: ClassVar[int] = 16
    camera: ClassVar[Camera] = Camera(threshold=0.25, mismatch=0.03, noise_hz=1.0, epsilon=0.001)
    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Bars that move before a simulated event camera",
        classes=("right", "left", "down", "up"),
        sample_shape=(None, 2, 16, 16),
        licence="Apache-2.0 (generated)",
        citation="spikecore; the camera after H. Rebecq et al., ESIM, CoRL 2018",
        notes="Every pixel gives the same events for every class, only at other times: a classifier of counts stays at "
        "chance. Bars are bright or dark at random, so no single moment tells the direction either.",
        sensor_size=(16, 16),
        num_samples=(("train", 800), ("test", 200)),
    )

    @dataclass(frozen=True)
    class Config(Simulated.Config):
        """
        Args:
            num_train, num_test: samples per class.
        """

        num_train: Annotated[int, Range(ge=1, le=100_000)] = 200
        num_test: Annotated[int, Range(ge=1, le=100_000)] = 50

    def variant(self) -> str:
        return f"v{self.version}-{self.config.num_train}-{self.config.num_test}"

    def simulate(self, split: str) -> Iterator[tuple[Events, int]]:
        """100 ms in 100 frames; width and contrast of the bar differ, and so do the moments of entry and exit."""
        rng = np.random.default_rng([2, self.splits.index(split)])
        count = 4 * (self.config.num_train if split == "train" else self.config.num_test)
        labels = np.arange(count) % 4
        times = np.linspace(0, 100_000, 101)
        for start in range(0, count, CHUNK):
            part = labels[start : start + CHUNK]
            width = rng.uniform(1.5, 4.0, len(part))
            level = np.where(rng.random(len(part)) < 0.5, 1.0, 0.25)
            entry, travel = rng.uniform(0.0, 0.2, len(part)), rng.uniform(0.6, 0.8, len(part))
            frames = (self._frame(part, width, level, (t / 100_000 - entry) / travel) for t in times)
            yield from zip(self.camera.record(frames, times, rng), part.tolist(), strict=True)

    def _frame(self, labels: np.ndarray, width: np.ndarray, level: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Intensities: 0.5, and `level` under the bar; edges by the area that is covered."""
        share = np.clip(share, 0.0, 1.0)
        share = np.where(labels % 2 == 1, 1 - share, share)  # left and up: the same way back
        left = -width + share * (self.size + width)
        pixels = np.arange(self.size)
        covered = np.clip(np.minimum(pixels + 1, (left + width)[:, None]) - np.maximum(pixels, left[:, None]), 0, 1)
        line = 0.5 + covered * (level - 0.5)[:, None]
        wide = np.broadcast_to(line[:, None, :], (len(labels), self.size, self.size))
        return np.where((labels >= 2)[:, None, None], wide.transpose(0, 2, 1), wide)
