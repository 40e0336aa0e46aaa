"""MNIST and Fashion-MNIST: four idx files each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from spikecore.datasets import make_directory
from spikecore.errors import DatasetError
from spikecore_datasets_vision import declarations
from spikecore_datasets_vision.dataset import Stored
from spikecore_datasets_vision.idx import IdxImages, read_idx
from spikecore_datasets_vision.named import NamedDataset, gunzip

PREFIXES = {"train": "train", "test": "t10k"}


class MNIST(NamedDataset):
    """Handwritten digits, `[1, 28, 28]`; the authors' split."""

    name: ClassVar[str] = "mnist"
    info = declarations.MNIST
    present: ClassVar[tuple[str, ...]] = tuple(file.name.removesuffix(".gz") for file in declarations.MNIST.files)

    def unpack(self, archives: Sequence[Path], into: Path) -> None:
        def fill(aside: Path) -> None:
            for path in archives:
                gunzip(path, aside / path.name.removesuffix(".gz"))

        make_directory(into, fill)

    def stored(self, name: str) -> Stored:
        directory, prefix = self.prepare(), PREFIXES[name]
        images = IdxImages(directory / f"{prefix}-images-idx3-ubyte")
        if images.size != self.stored_shape[1:]:
            raise DatasetError(f"{images.path}: its images are {images.size}; expected {self.stored_shape[1:]}")
        path = directory / f"{prefix}-labels-idx1-ubyte"
        labels = read_idx(path)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DatasetError(f"{path}: holds {tuple(labels.shape)} of {labels.dtype}; labels are [N] of uint8")
        return self.checked(name, images, labels, path)


class FashionMNIST(MNIST):
    """Articles of clothing, `[1, 28, 28]`; the authors' split."""

    name: ClassVar[str] = "fashion-mnist"
    info = declarations.FASHION_MNIST
