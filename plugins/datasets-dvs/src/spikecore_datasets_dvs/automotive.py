"""Prophesee's recordings from cars: N-Cars (what is in the picture) and Gen1 (where it is).

n-cars            n-cars_train/cars/obj_004396_td.dat …   n-cars_test/background/…      one recording of 100 ms a sample
prophesee-gen1    train/NAME_td.dat with train/NAME_bbox.npy, val/…, test/…             one labelled moment a sample

Boxes of Gen1 are `[N, 5]`, float32: class, x and y of the upper left corner, width, height, in pixels of the sensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spikecore.errors import DatasetError
from spikecore.interfaces import DatasetCapabilities, Range
from spikecore_datasets_dvs import declarations
from spikecore_datasets_dvs.dataset import Recording
from spikecore_datasets_dvs.events import Events, check_inside
from spikecore_datasets_dvs.folder import by_class
from spikecore_datasets_dvs.formats import dat, reading_errors
from spikecore_datasets_dvs.formats.arrays import read_npy
from spikecore_datasets_dvs.named import NamedDataset, the_directory

Splits = dict[str, list[Recording]]
EVENTS, BOXES = "_td.dat", "_bbox.npy"
TIMES = ("t", "ts")
"""Names of the field with the time of a box: newer and older files."""


class NCars(NamedDataset):
    """N-Cars; the authors' split."""

    name: ClassVar[str] = "n-cars"
    info = declarations.N_CARS
    present: ClassVar[tuple[str, ...]] = ("**/n-cars_train/**/cars/*.dat",)
    nested: ClassVar[bool] = True

    def recordings(self, directory: Path) -> Splits:
        by_split: Splits = {}
        for split in self.splits:
            top = the_directory(directory, f"n-cars_{split}")
            parent = the_directory(top, "cars").parent
            by_split[split] = by_class(parent, DIRECTORIES, f"*{EVENTS}", directory)
        return self.counted(by_split)


DIRECTORIES = ("background", "cars")
"""Of N-Cars, in label order."""


class PropheseeGen1(NamedDataset):
    """Gen1: the events before each labelled moment, and the boxes of that moment; the authors' split.

    Raises:
        DatasetError: a recording has no boxes beside it, or boxes are damaged.
    """

    name: ClassVar[str] = "prophesee-gen1"
    info = declarations.PROPHESEE_GEN1
    capabilities: ClassVar[DatasetCapabilities] = dataclasses.replace(NamedDataset.capabilities, target="items")
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    present: ClassVar[tuple[str, ...]] = (f"**/train/*{EVENTS}",)

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            window_us: the events of so many microseconds before the labelled moment are the sample.
            min_side: boxes with a shorter side are left out (usual: 10), in pixels.
            min_diagonal: boxes with a shorter diagonal are left out (usual: 30), in pixels.
            skip_us: moments before this one are left out (usual: 500 000).
        """

        window_us: Annotated[int, Range(ge=1)] = 100_000
        min_side: Annotated[float, Range(ge=0.0)] = 0.0
        min_diagonal: Annotated[float, Range(ge=0.0)] = 0.0
        skip_us: Annotated[int, Range(ge=0)] = 0

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Boxes do not follow what moves pixels."""
        for option in ("transforms", "augment"):
            for place, transform in enumerate(getattr(config, option)):
                if transform.moves_pixels:
                    yield (
                        f"{option}[{place}]",
                        f"{transform.name!r} moves pixels, and the boxes would not follow: remove it",
                    )

    def recordings(self, directory: Path) -> Splits:
        top = the_directory(directory, "train").parent
        by_split: Splits = {}
        for split in self.splits:
            folder = the_directory(top, split, depth=2)
            by_split[split] = []
            for path in sorted(folder.glob(f"*{EVENTS}")):
                if path.name.startswith("."):
                    continue
                where = path.relative_to(directory).as_posix()
                moments = self._boxes(path.with_name(path.name.removesuffix(EVENTS) + BOXES))
                by_split[split] += [
                    Recording(where, -1, start_us=moment - self.config.window_us, stop_us=moment) for moment in moments
                ]
        return self.counted(by_split)

    def label(self, directory: Path, recording: Recording) -> int | Tensor:
        path = directory / recording.path
        boxes = self._boxes(path.with_name(path.name.removesuffix(EVENTS) + BOXES))
        return torch.from_numpy(boxes[recording.stop_us].copy())

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        with reading_errors(path):
            events = dat.read_window(path, recording.start_us, recording.stop_us)
        return check_inside(events, self.sensor_size, str(path))

    def _boxes(self, path: Path) -> dict[int, np.ndarray]:
        """Labelled moment → its boxes; the files are small, and kept."""
        if path not in self._kept:
            self._kept[path] = self._read_boxes(path)
        return self._kept[path]

    @cached_property
    def _kept(self) -> dict[Path, dict[int, np.ndarray]]:
        return {}

    def _read_boxes(self, path: Path) -> dict[int, np.ndarray]:
        if not path.is_file():
            raise DatasetError(f"{path}: is missing; the boxes of each recording lie beside it")
        with reading_errors(path):
            array = read_npy(path)
        names = array.dtype.names or ()
        time = next((name for name in TIMES if name in names), None)
        if missing := [name for name in ("x", "y", "w", "h", "class_id") if name not in names] or time is None:
            lacks = missing[0] if isinstance(missing, list) else "t"
            raise DatasetError(f"{path}: lacks the field {lacks!r}; it has {', '.join(names) or 'none'}")
        t = array[time].astype(np.int64)
        boxes = np.stack([array[name].astype(np.float32) for name in ("class_id", "x", "y", "w", "h")], 1)
        if not np.isfinite(boxes).all():
            raise DatasetError(f"{path}: holds boxes that are not finite")
        if len(boxes) and not 0 <= boxes[:, 0].min() <= boxes[:, 0].max() < self.num_outputs:
            raise DatasetError(
                f"{path}: holds the class {boxes[:, 0].max():g}; 0 to {self.num_outputs - 1} are expected"
            )
        config = self.config
        keep = (boxes[:, 3:].min(1) >= config.min_side) & (np.hypot(boxes[:, 3], boxes[:, 4]) >= config.min_diagonal)
        keep &= t >= config.skip_us
        t, boxes = t[keep], boxes[keep]
        return {int(moment): boxes[t == moment] for moment in np.unique(t)}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def reading_options(self) -> Any:
        config = self.config
        return [config.window_us, config.min_side, config.min_diagonal, config.skip_us]
