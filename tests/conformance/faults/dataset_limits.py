"""Faults in datasets that one seed, one process and one reader do not show."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyDataset,
    ToySplit,
)

FAULTS, fault = table()


@dataclass(frozen=True)
class SeededConfig:
    seed: int = 0


class ToySeeded(ToyDataset):
    """A sound dataset with a seed."""

    Config = SeededConfig

    def split(self, name):
        split = super().split(name)
        return replace(split, seed=split.seed + 5000 * self.config.seed)


@fault("test_every_seed_has_an_effect", "the option 'seed' and ignores it")
class IgnoresSeed(ToyDataset):
    """the option seed is ignored"""

    Config = SeededConfig


@fault("test_a_fresh_process_gets_the_same", "is another one in a fresh process")
class ByHash(ToyDataset):
    """another content in every process: seeds come from hash()"""

    def split(self, name):
        return replace(super().split(name), seed=hash(name) % 100_000)


@dataclass(frozen=True)
class Stored(ToySplit):
    def __post_init__(self):
        images = torch.stack([ToySplit.__getitem__(self, index)[0] for index in range(self.size)])
        object.__setattr__(self, "images", images)

    def __getitem__(self, index):
        _, label = super().__getitem__(index)
        return self.images[index], label


class StoredCopies(Stored):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x.clone(), label


@fault("test_samples_are_their_own", "are the same memory")
class HandsOutViews(ToyDataset):
    """gives views of its store"""

    make_split = Stored


class ToyStored(ToyDataset):
    """A sound dataset that keeps its samples and gives copies."""

    make_split = StoredCopies


@dataclass(frozen=True)
class OneFile(ToySplit):
    """Seeks, then reads, as one open file does."""

    def __post_init__(self):
        object.__setattr__(self, "place", [0])

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(index)
        self.place[0] = index
        torch.exp(torch.rand(64, generator=torch.Generator().manual_seed(0)))
        return super().__getitem__(self.place[0])


@fault("test_several_threads", "sample")
class OneFileForAll(ToyDataset):
    """threads that share one position in a file"""

    make_split = OneFile


@fault("test_process_settings_stay", "numpy's global random generator")
class SeedsNumpy(ToyDataset):
    """seeds numpy's global generator"""

    def split(self, name):
        np.random.seed(0)
        return super().split(name)
