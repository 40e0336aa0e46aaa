"""Batches of an epoch, read in this process or ahead of time by worker processes.

Workers only read samples. What is drawn for a batch (mixing in a `collate`) is drawn in this process when its turn
comes, so a run resumes to the same bits with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spikecore.interfaces import Batch, Split
from spikecore.trainers import assemble, put_together
from spikecore.workers import begin_worker, starting_workers


@dataclass(frozen=True)
class Loader:
    """How batches are read.

    Args:
        split: gives the samples.
        is_sequence: samples have a time axis.
        device: where batches go.
        num_workers: processes that read ahead; 0 reads in this one.
        prefetch: batches that each worker keeps ready.
    """

    split: Split
    is_sequence: bool
    device: torch.device
    num_workers: int = 0
    prefetch: int = 2

    def batches(self, indices: Sequence[Any], generator: torch.Generator | None = None) -> Iterator[Batch]:
        """The batch of each of these lists of indices, in order, on its way to the device.

        Args:
            indices: one list for each batch.
            generator: for a `collate` that draws; None while evaluating.
        """
        for batch in self._read(indices, generator):
            yield self._moved(batch)

    def _read(self, indices: Sequence[Any], generator: torch.Generator | None) -> Iterable[Batch]:
        if not self.num_workers or not indices:
            for index in indices:
                yield assemble(self.split, index, self.is_sequence, generator)
            return
        lists = [[int(number) for number in index] for index in indices]
        ahead: DataLoader[Any] = DataLoader(
            _Samples(self.split),
            batch_sampler=lists,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch,
            collate_fn=list,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),  # torch's global one is the run's: the seeds of workers must not come from it
        )
        with starting_workers():
            read = iter(ahead)
        for index, samples in zip(lists, read, strict=True):
            yield put_together(self.split, samples, self.is_sequence, generator, index)

    def _moved(self, batch: Batch) -> Batch:
        """With x and labels on the device; from pinned memory a GPU copies while it computes."""
        if self.device.type == "cpu":
            return batch
        moved = {"x": self._to_device(batch.x)}
        if isinstance(batch.label, Tensor):
            moved["label"] = self._to_device(batch.label)
        return batch._replace(**moved)

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


class _Samples:
    """What a DataLoader asks for: several samples at once."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int | Tensor]]:
        at_once = getattr(self._split, "__getitems__", None)
        if at_once is not None:
            return list(at_once(indices))
        return [self._split[index] for index in indices]

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        return self._split[index]
