"""Anyone's images: one directory per class.

root/cat/a.png    root/dog/b.jpg …               split per class, seeded
root/train/cat/…  root/test/cat/…                split as it stands

[dataset]
name = "image-folder"
root = "photographs"
size = [64, 64]
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from spikecore.datasets import check_filled, class_names, labelled_files, split_per_class, tops
from spikecore.errors import DatasetError
from spikecore.interfaces import DatasetInfo, Range
from spikecore_datasets_vision.dataset import ImageDataset, Stored
from spikecore_datasets_vision.decoding import LARGEST_IMAGE, MOST_PIXELS, SUFFIXES, Fit, decode
from spikecore_datasets_vision.normalisation import Channels

Found = list[tuple[Path, int]]


@dataclass(frozen=True)
class Files:
    """Images that are decoded when they are asked for.

    Args:
        paths: of the files.
        size: `(H, W)`.
        channels, fit: see `decode`.
        num_threads: that decode; Pillow lets them run at the same time.
        most_pixels: see `decode`.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]
    channels: Literal["colour", "grey"]
    fit: Fit
    num_threads: int
    most_pixels: int = MOST_PIXELS

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, index: np.ndarray) -> np.ndarray:
        """uint8 `[B, C, H, W]`."""
        paths = [self.paths[i] for i in index]
        if self.num_threads < 2 or len(paths) < 2:
            images = [self._one(path) for path in paths]
        else:
            with ThreadPoolExecutor(self.num_threads) as pool:
                images = list(pool.map(self._one, paths))
        depth = 3 if self.channels == "colour" else 1
        return np.stack(images) if images else np.empty((0, depth, *self.size), np.uint8)

    def _one(self, path: Path) -> np.ndarray:
        return decode(path, self.size, self.channels, self.fit, self.most_pixels)


class ImageFolder(ImageDataset):
    """Images in a directory per class, `[3, H, W]`, or `[1, H, W]` when grey.

    Raises:
        DatasetError: the directory does not exist, a class has no images, or one is in the test split only.
    """

    name: ClassVar[str] = "image-folder"

    @dataclass(frozen=True)
    class Config(ImageDataset.Config):
        """
        Args:
            root: directory with one directory per class, or with `train` and `test` that hold these.
            size: H and W that images are brought to when they are decoded.
            fit: how: cut off what is too much, change the shape, or add black.
            channels: `colour` (red, green, blue) or `grey`; transparency is left out.
            test_share: share of each class that goes to the test split.
            num_threads: that decode.
            most_pixels: that a file may have; a larger one is an error, because its decoder takes memory by pixels.
        """

        size: tuple[int, ...] = (0, 0)
        fit: Fit = "crop"
        channels: Literal["colour", "grey"] = "colour"
        test_share: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.2
        num_threads: Annotated[int, Range(ge=1, le=256)] = 1
        most_pixels: Annotated[int, Range(ge=1, le=LARGEST_IMAGE)] = MOST_PIXELS

    @cached_property
    def info(self) -> DatasetInfo:  # type: ignore[override]
        """What the directory shows."""
        return self.described()

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """A directory and a size have to be given; statistics too, where they are wanted."""
        if not config.root:
            yield "root", "must name a directory with one directory per class"
        size = config.size
        if len(size) != 2 or min(size) < 1 or size[0] * size[1] > config.most_pixels:
            yield "size", f"must be [H, W], as in [64, 64]; got {list(size)}"
        if isinstance(config.normalise, Channels) and not config.normalise.mean:
            yield "normalise", "needs 'mean' and 'std': measuring them would decode every image"

    def described(self) -> DatasetInfo:
        classes = class_names(tops(self.directory, self.splits))
        if not classes:
            raise DatasetError(f"{self.directory}: holds no directories; one per class is expected")
        return DatasetInfo(
            title=f"Images in {self.directory}",
            classes=classes,
            sample_shape=self.stored_shape,
            licence="that of the files",
            citation="that of the files",
        )

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """`[C, H, W]` as decoded."""
        height, width = self.config.size
        return (3 if self.config.channels == "colour" else 1), height, width

    def stored(self, name: str) -> Stored:
        parts = tops(self.directory, self.splits)
        by_part = [self._images(top) for top in parts]
        what = f"images (suffixes: {', '.join(sorted(SUFFIXES))})"
        labels = [{label for _, label in part} for part in by_part]
        check_filled(list(zip(parts, labels, strict=True)), self.info.classes, what)
        if len(parts) == 1:
            whole = split_per_class(by_part[0], self.config.test_share, self.config.seed, label=lambda item: item[1])
            by_part = list(whole)
        chosen = by_part[self.splits.index(name)]
        if not chosen:
            raise DatasetError(f"{self.directory}: no class has images enough for the split {name!r}")
        config = self.config
        height, width = config.size
        files = Files(
            tuple(path for path, _ in chosen),
            (height, width),
            config.channels,
            config.fit,
            config.num_threads,
            config.most_pixels,
        )
        return Stored(files, np.array([label for _, label in chosen], np.int64))

    def _images(self, top: Path) -> Found:
        return [item for item in labelled_files(top, self.info.classes) if item[0].suffix.lower() in SUFFIXES]
