"""Recordings of different lengths in one batch: padding with a mask, and batches of similar lengths.

Parity: SpikingJelly's `pad_sequence_collate` and `padded_sequence_mask`, with time first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from spikecore.errors import ContractError, OptionError
from spikecore.interfaces import Batch, TargetKind
from spikecore.trainers import stack_labels


class Sample(tuple[Any, ...]):
    """`(x, label)`, as a tuple that refuses to be stacked batch first.

    torch's default collate makes `[B, T, …]` of sequences, where nets here take `[T, B, …]`, and nothing would notice.
    It builds a batch by calling the type of a sample; that call is an error which names `split.collate`.
    """

    _fields = ("x", "label")

    def __new__(cls, *parts: object) -> Sample:
        raise ContractError(
            "samples of events are sequences, and torch's default collate would put the batch before the time: pass "
            "the split's own, as in DataLoader(split, batch_size=16, collate_fn=split.collate); it gives x [T, B, ...]"
        )

    @classmethod
    def of(cls, x: Tensor, label: int | Tensor) -> Sample:
        """A sample."""
        return tuple.__new__(cls, (x, label))

    def __reduce__(self) -> tuple[Any, ...]:
        return Sample.of, tuple(self)

    @property
    def x(self) -> Tensor:
        """`[T, *sample_shape]`."""
        x: Tensor = self[0]
        return x

    @property
    def label(self) -> int | Tensor:
        """What the dataset's target says."""
        label: int | Tensor = self[1]
        return label


def pad_collate(
    samples: Sequence[tuple[Tensor, int | Tensor]],
    generator: torch.Generator | None = None,
    target: TargetKind = "class",
) -> Batch:
    """Samples `[T_i, ...]` → x `[T, B, ...]` with zeros behind the end of each, T the longest; and the mask.

    Example:
        >>> batch = pad_collate([(torch.ones(1, 2), 0), (torch.ones(3, 2), 1)])
        >>> batch.x.shape, batch.mask.T.tolist()
        (torch.Size([3, 2, 2]), [[True, False, False], [True, True, True]])
    """
    lengths = [len(x) for x, _ in samples]
    labels = stack_labels([label for _, label in samples], target)
    if len(set(lengths)) == 1:
        return Batch(torch.stack([x for x, _ in samples], 1), labels)
    x = torch.nn.utils.rnn.pad_sequence([x for x, _ in samples])
    return Batch(x, labels, torch.arange(len(x))[:, None] < torch.tensor(lengths))


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
