"""Faults planted in datasets."""

import contextlib
import socket
import threading
from dataclasses import dataclass, replace

import torch

from spikecore.errors import DatasetError
from spikecore.interfaces.dataset import Batch, DatasetCapabilities
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyDataset,
    ToySplit,
)

FAULTS, fault = table()


class FromOne(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x, label + 1


class Augmented(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x + torch.rand(()), label


class Endless(ToySplit):
    def __getitem__(self, index):
        return super().__getitem__(index % self.size)


class Doubles(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x.double(), label


class Ragged(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x[:, : 3 + index % 2], label


class Locked(ToySplit):
    def __init__(self, seed, size):
        super().__init__(seed, size)
        object.__setattr__(self, "lock", threading.Lock())


@fault("test_labels", r"label is 3; a class must lie in 0 \.\. 2")
class LabelsFromOne(ToyDataset):
    """labels that count from one"""

    make_split = FromOne


@fault("test_splits_are_disjoint", "are in train and in test")
class Overlapping(ToyDataset):
    """the test split is part of the training split"""

    def split(self, name):
        return self.make_split(0, 12) if name == "test" else super().split(name)


@fault("test_splits_are_stable", "is another one|global generator")
class NewSplits(ToyDataset):
    """hidden randomness: every instance draws its own splits"""

    def split(self, name):
        return replace(super().split(name), seed=int(torch.randint(1000, ())) + (5000 if name == "test" else 0))


@fault("test_same_index_same_sample", "read again")
class AugmentedDataset(ToyDataset):
    """hidden randomness: the same index gives another sample"""

    make_split = Augmented


@fault("test_length", "DID NOT RAISE")
class EndlessDataset(ToyDataset):
    """no end: an index beyond the length starts again"""

    make_split = Endless


@fault("test_samples", "torch.float64")
class DoubleDataset(ToyDataset):
    """samples of float64"""

    make_split = Doubles


@fault("test_equal_lengths", "capabilities.variable_length is False")
class RaggedDataset(ToyDataset):
    """mis-declared capability: samples of different shapes"""

    make_split = Ragged


@fault("test_pickles", "pickle")
class LockedDataset(ToyDataset):
    """cannot be pickled to workers"""

    make_split = Locked


@fault("test_needs_no_network", "network connection")
class Remote(ToyDataset):
    """mis-declared capability: says embedded, and connects"""

    capabilities = DatasetCapabilities(embedded=True)

    def split(self, name):
        with socket.socket() as connection, contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", 9))
        return super().split(name)


@fault("test_downloads_nothing_when_it_must_not", r"connect to 127\.0\.0\.1:9 while nothing may be downloaded")
class Eager(ToyDataset):
    """downloads by means of its own, also where nothing may be downloaded"""

    capabilities = DatasetCapabilities()

    def split(self, name):
        with socket.socket() as connection:
            try:
                connection.connect(("127.0.0.1", 9))
            except Exception as error:
                raise DatasetError("cannot be had") from error
        return super().split(name)


@dataclass(frozen=True)
class Padding(ToySplit):
    """Sequences of 2 or 3 steps."""

    epoch: int = 0

    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return (x + self.epoch).expand(2 + index % 2, -1, -1, -1).clone(), label

    def __getitems__(self, indices):
        return [self[index] for index in indices]

    def set_epoch(self, epoch):
        object.__setattr__(self, "epoch", epoch)

    def collate(self, samples, generator):
        steps = torch.arange(max(len(x) for x, _ in samples))
        mask = torch.stack([steps < len(x) for x, _ in samples], 1)
        padded = [torch.cat([x, x.new_zeros(len(steps) - len(x), *x.shape[1:])]) for x, _ in samples]
        return Batch(torch.stack(padded, 1), torch.tensor([label for _, label in samples]), mask)

    def unaugmented(self):
        return Plain(self.seed, self.size)


class Plain(Padding):
    """The same in every epoch."""

    def set_epoch(self, epoch):
        """Nothing."""


class ToySequences(ToyDataset):
    """A sound dataset of sequences whose lengths differ."""

    capabilities = DatasetCapabilities(embedded=True, variable_length=True)
    is_sequence = True
    make_split = Padding


class ByteSteps(Padding):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return (10 * x).to(torch.uint8), label


@fault("test_samples", "x is torch.uint8, expected torch.float32")
class ByteSequences(ToySequences):
    """sequences of bytes, which no encoder reads"""

    make_split = ByteSteps


class BatchFirst(Padding):
    def collate(self, samples, generator):
        x, label, mask = super().collate(samples, generator)
        return Batch(x.transpose(0, 1), label, mask)


class Unmarked(Padding):
    def collate(self, samples, generator):
        return super().collate(samples, generator)._replace(mask=None)


class Growing(Padding):
    def set_epoch(self, epoch):
        object.__setattr__(self, "epoch", self.epoch + 1)


class Sorted(Padding):
    def __getitems__(self, indices):
        return super().__getitems__(sorted(indices))


class Unbounded(Padding):
    def __getitems__(self, indices):
        return super().__getitems__([index % len(self) for index in indices])


@fault("test_several_at_once", "read at once")
class SortedDataset(ToySequences):
    """samples that come in another order than they were asked for in"""

    make_split = Sorted


@fault("test_several_at_once", "DID NOT RAISE")
class UnboundedDataset(ToySequences):
    """an index beyond the end that begins again from the start"""

    make_split = Unbounded


@fault("test_collate", "labels|steps")
class BatchFirstDataset(ToySequences):
    """a batch with time in the second place"""

    make_split = BatchFirst


@fault("test_collate", "2 steps, 3 are marked")
class UnmarkedDataset(ToySequences):
    """padding that nobody can tell from data"""

    make_split = Unmarked


@fault("test_epochs", "read after those of epoch 1")
class GrowingDataset(ToySequences):
    """memory: an epoch's samples depend on the epochs before"""

    make_split = Growing
