"""The base of every image dataset: stored images → augmentation → transforms → normalisation → samples `[C, H, W]`.

A dataset says where its images and labels are; everything else is here. A batch is read, changed and normalised as a
whole (`__getitems__`), and a single sample is a batch of one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from spikecore.datasets import Epoch, Mix, data_dir, mix_batch, subset
from spikecore.errors import OptionError
from spikecore.interfaces import Batch, Configurable, DatasetCapabilities, DatasetInfo, OneOf, Range, make_config
from spikecore_datasets_vision.draws import Draws
from spikecore_datasets_vision.normalisation import Channels, Unit, measure
from spikecore_datasets_vision.transforms import Transform


class Images(Protocol):
    """Stored images; pickles to worker processes."""

    def __len__(self) -> int: ...

    def take(self, index: np.ndarray) -> np.ndarray:
        """uint8 `[B, C, H, W]`; an array of its own."""


@dataclass(frozen=True)
class Stored:
    """One split as it is stored.

    Args:
        images: all of them.
        labels: int64, one for each.
    """

    images: Images
    labels: np.ndarray


class ImageDataset(Configurable):
    """Base of image datasets; subclasses give `info` and `stored`."""

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DatasetCapabilities] = DatasetCapabilities(
        same_samples=("transforms", "augment", "normalise")
    )
    info: DatasetInfo
    name: ClassVar[str]
    """The registered name; also that of its directory."""
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    is_sequence: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            root: directory of the files; "" is `$SPIKECORE_DATA` (or the cache directory) with the dataset's name.
            transforms: the same for every sample, behind the augmentation: `resize`, `pad`, `crop`.
            augment: random, for the training split: `random_crop`, `random_resized_crop`, `random_flip`,
                `colour_jitter`, `rand_augment`, `random_erasing`, `torchvision`; of whole batches, wherever they stand
                in the list: `mixup`, `cutmix`.
            normalise: `unit` leaves values in 0 .. 1; `channels` gives each channel mean 0 and standard deviation 1.
            share: part of each class that is used.
            seed: of the split, of the choice of that part, and of the augmentation.
        """

        root: str = ""
        transforms: Annotated[tuple[Any, ...], OneOf("image_transform")] = ()
        augment: Annotated[tuple[Any, ...], OneOf("image_augment")] = ()
        normalise: Annotated[Any, OneOf("image_normalisation")] = Unit()  # noqa: RUF009
        share: Annotated[float, Range(gt=0.0, le=1.0)] = 1.0
        seed: Annotated[int, Range(ge=0, lt=2**32)] = 0

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        self.info = dataclasses.replace(self.described(), sample_shape=self.sample_shape)
        self.config.normalise.check(self.sample_shape[0])

    def described(self) -> DatasetInfo:
        """The dataset as it is stored."""
        return type(self).info

    @property
    def num_outputs(self) -> int:
        """Number of labels."""
        return len(self.info.classes)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """`[C, H, W]` as stored."""
        channels, height, width = type(self).info.sample_shape
        assert channels is not None
        assert height is not None
        assert width is not None
        return channels, height, width

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, the same in every split."""
        channels, *stored = self.stored_shape
        size = (stored[0], stored[1])
        test = self._size_behind(self.config.transforms, size)
        train = self._size_behind((*self._changes(), *self.config.transforms), size)
        if train != test:
            raise OptionError(
                f"{self.name}: images of the training split are {train} behind 'augment' and 'transforms', those of "
                f"the test split {test} behind 'transforms': name the size in 'transforms', with a resize or a crop"
            )
        return channels, *test

    def _size_behind(self, transforms: Sequence[Transform], size: tuple[int, int]) -> tuple[int, int]:
        for transform in transforms:
            size = transform.size(size)
        return size

    def _changes(self) -> list[Transform]:
        return [item for item in self.config.augment if isinstance(item, Transform)]

    @property
    def directory(self) -> Path:
        """Where its files are, or go."""
        return Path(self.config.root).expanduser() if self.config.root else data_dir() / self.name

    def stored(self, name: str) -> Stored:
        """The images and labels of a split; brings the files to the disk on first use."""
        raise NotImplementedError(f"{type(self).__name__} declares no stored")

    def split(self, name: str) -> ImageSplit:
        """The named split; prepares the files on first use."""
        if name not in self.splits:
            raise OptionError(f"{self.name} has the splits {', '.join(self.splits)}; got {name!r}")
        stored = self.stored(name)
        chosen = np.arange(len(stored.labels))
        if self.config.share < 1:
            chosen = np.array(
                subset(chosen.tolist(), self.config.share, self.config.seed, label=lambda i: int(stored.labels[i]))
            )
        return ImageSplit(self, name, stored, chosen, self._normaliser(name, stored))

    def _normaliser(self, name: str, stored: Stored) -> Channels | None:
        normalise = self.config.normalise
        if not isinstance(normalise, Channels):
            return None
        if normalise.mean:
            return normalise
        return measure((stored if name == "train" else self.stored("train")).images)


class ImageSplit:
    """Samples `(x, label)`: x float32 `[C, H, W]`, in 0 .. 1 unless it is normalised.

    Args:
        dataset: its options.
        name: of the split; `train` is augmented.
        stored: images and labels.
        chosen: which of them, in order.
        normaliser: of each channel; None leaves values in 0 .. 1.
    """

    def __init__(
        self, dataset: ImageDataset, name: str, stored: Stored, chosen: np.ndarray, normaliser: Channels | None
    ) -> None:
        self.stored, self.chosen, self.normaliser, self.name = stored, chosen, normaliser, name
        self.seed, self._epoch, self.transforms = dataset.config.seed, Epoch(), dataset.config.transforms
        augment = dataset.config.augment if name == "train" else ()
        self.augment = tuple(item for item in augment if isinstance(item, Transform))
        mixes = [item for item in dataset.config.augment if isinstance(item, Mix)]
        # Of all splits or of none: whoever trains should not have to ask twice.
        if mixes:
            mixes = mixes if name == "train" else []
            self.collate = partial(_collate, mixes=mixes, num_classes=dataset.num_outputs)
        self._num_classes = dataset.num_outputs

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several samples at once, as `torch.utils.data.DataLoader` asks for them."""
        index = np.asarray(indices, np.int64).reshape(-1)
        outside = (index < -len(self)) | (index >= len(self))
        if outside.any():
            raise IndexError(f"sample {index[outside][0]} of {len(self)}")
        if not len(index):
            return []
        index = index % len(self)
        chosen = self.chosen[index]
        x = self.read(chosen, index)
        return list(zip(x, self.stored.labels[chosen].tolist(), strict=True))

    def read(self, chosen: np.ndarray, index: np.ndarray) -> Tensor:
        """Images `[B, C, H, W]`.

        Args:
            chosen: their numbers in what is stored.
            index: their numbers in the split, which the augmentation is drawn from.
        """
        x = torch.from_numpy(self.stored.images.take(chosen)).float().div_(255)
        for place, transform in enumerate((*self.augment, *self.transforms)):
            x = transform(x, Draws(self.seed, self._epoch.number, index, place))
        return x if self.normaliser is None else self.normaliser(x)

    def unnormalised(self, x: Tensor) -> Tensor:
        """A sample with its values in 0 .. 1 again, for pictures."""
        return x if self.normaliser is None else self.normaliser.undone(x)

    @property
    def labels(self) -> Tensor:
        """All labels, without reading an image."""
        return torch.from_numpy(self.stored.labels[self.chosen])

    def unaugmented(self) -> ImageSplit:
        """The same samples without `augment`."""
        plain = copy.copy(self)
        plain.augment = ()
        if hasattr(self, "collate"):
            plain.collate = partial(_collate, mixes=[], num_classes=self._num_classes)
        return plain

    def set_epoch(self, epoch: int) -> None:
        """The augmentation of this epoch is the one that indexing gives."""
        self._epoch.number = epoch


def _collate(
    samples: Sequence[tuple[Tensor, int]],
    generator: torch.Generator | None = None,
    *,
    mixes: Sequence[Mix],
    num_classes: int,
) -> Batch:
    """Stacks, and mixes where there is a generator."""
    batch = Batch(torch.stack([x for x, _ in samples]), torch.tensor([label for _, label in samples]))
    if not mixes or generator is None or len(samples) < 2:
        return batch
    return mix_batch(batch, mixes, num_classes, False, generator)
