"""Recordings of different lengths in one batch: padding with a mask, and batches of similar lengths.

Parity: SpikingJelly's `pad_sequence_collate` and `padded_sequence_mask`, with time first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from spikecore.errors import OptionError
from spikecore.interfaces import Batch


def pad_collate(samples: Sequence[tuple[Tensor, int]], generator: torch.Generator | None = None) -> Batch:
    """Samples `[T_i, ...]` → x `[T, B, ...]` with zeros behind the end of each, T the longest; and the mask.

    Example:
        >>> batch = pad_collate([(torch.ones(1, 2), 0), (torch.ones(3, 2), 1)])
        >>> batch.x.shape, batch.mask.T.tolist()
        (torch.Size([3, 2, 2]), [[True, False, False], [True, True, True]])
    """
    lengths = torch.tensor([len(x) for x, _ in samples])
    x = torch.nn.utils.rnn.pad_sequence([x for x, _ in samples])
    mask = torch.arange(len(x))[:, None] < lengths
    labels = torch.tensor([label for _, label in samples])
    return Batch(x, labels, None if bool(mask.all()) else mask)


class BucketSampler(Sampler[list[int]]):
    """Batches of samples of similar length, so that little is padded; for a DataLoader's `batch_sampler`.

    A dataset's option `bucket` gives them to a run. They are drawn anew whenever they are asked for.

    The samples are shuffled, cut into pools, and sorted by length within each pool; the batches are shuffled.

    Args:
        lengths: of all samples.
        batch_size: samples per batch; the last one may be smaller.
        generator: of the order; None keeps the samples in order and only sorts within pools.
        pool: batches per pool.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, generator: torch.Generator | None = None, pool: int = 20
    ) -> None:
        if batch_size < 1 or pool < 1:
            raise OptionError(f"batch_size and pool must be at least 1; got {batch_size} and {pool}")
        self.lengths, self.batch_size = torch.as_tensor(lengths), batch_size
        self.generator, self.pool = generator, pool

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        count = len(self.lengths)
        order = torch.arange(count) if self.generator is None else torch.randperm(count, generator=self.generator)
        batches: list[list[int]] = []
        for part in torch.split(order, self.pool * self.batch_size) if count else ():
            by_length = part[torch.argsort(self.lengths[part], stable=True)]
            batches += [batch.tolist() for batch in torch.split(by_length, self.batch_size)]
        if self.generator is not None:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=self.generator)]
        yield from batches
