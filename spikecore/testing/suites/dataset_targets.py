"""Checks of a dataset's labels: they are what the target says, known in advance, batched, and not augmented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.interfaces.dataset import Target
from spikecore.testing.compare import assert_same
from spikecore.testing.suite import advice, skip
from spikecore.testing.suites.dataset_limits import LimitChecks
from spikecore.trainers import label_problem, put_together
from spikecore.trainers.splits import target_of

NUM_BATCHED = 5


class TargetChecks(LimitChecks):
    """The part of the dataset's suite that goes by `capabilities.target`."""

    kind: ClassVar[str] = "dataset"

    def test_labels(self) -> None:
        """Every label is what `capabilities.target` says, in its range, and labels are not all the same."""
        dataset = self.make()
        target = target_of(dataset)
        for name in dataset.splits:
            split = dataset.split(name)
            samples = [split[index] for index in self.indices(split)]
            for number, (x, label) in zip(self.indices(split), samples, strict=True):
                problem = label_problem(label, target, len(x) if dataset.is_sequence else None)
                assert not problem, f"{name}[{number}]: {problem}"
            labels = [torch.as_tensor(label) for _, label in samples]
            varied = any(not _equal(label, labels[0]) for label in labels)
            is_constant = target.kind == "class" and target.num_outputs == 1
            assert varied or is_constant or len(labels) < 2, f"{name}: every label is {samples[0][1]}"

    @advice("give one label per sample, int64 [N], in the order of the samples")
    def test_known_labels(self) -> None:
        """`labels`, where a split has it, holds what reading the samples gives."""
        dataset = self.make()
        splits = {name: dataset.split(name) for name in dataset.splits}
        if not any(hasattr(split, "labels") for split in splits.values()):
            skip("its splits have no `labels`: whoever needs all of them reads all samples")
        for name, split in splits.items():
            labels = torch.as_tensor(split.labels)
            assert target_of(dataset).kind == "class", "`labels` are of classes only"
            assert labels.dtype == torch.int64, f"{name}: labels are {labels.dtype}"
            assert labels.shape == (len(split),), f"{name}: labels are {tuple(labels.shape)}, samples {len(split)}"
            chosen = self.indices(split)
            read = torch.tensor([split[index][1] for index in chosen])
            assert_same(labels[chosen], read, f"{name}: `labels`, compared with the samples")

    def test_batches_of_labels(self) -> None:
        """A batch holds the labels of its samples: stacked, time first where there is time; items as a list."""
        dataset = self.make()
        target = target_of(dataset)
        for name in dataset.splits:
            split = _Targeted(dataset.split(name), target)
            samples = [split[index] for index in self.indices(split, NUM_BATCHED)]
            lengths = {len(x) for x, _ in samples} if dataset.is_sequence else {1}
            label = put_together(split, samples, dataset.is_sequence).label
            parts = _taken_apart(label, target, len(samples))
            for place, (_, own) in enumerate(samples):
                whole = torch.as_tensor(own)
                part = parts[place]
                if target.kind == "sequence" and len(lengths) > 1:
                    part = part[: len(whole)]  # what follows is padding
                assert_same(part, whole, f"{name}: a label taken from a batch")

    @advice("give the split a method `unaugmented()`, so that a validation part can be cut from it")
    def test_unaugmented(self) -> None:
        """A split that augments (it has `set_epoch`) has `unaugmented()`: the same labels, and samples that stay."""
        dataset = self.make()
        splits = {name: dataset.split(name) for name in dataset.splits}
        if not any(hasattr(split, "set_epoch") or hasattr(split, "unaugmented") for split in splits.values()):
            skip("its splits have no set_epoch: samples are the same in every epoch")
        for name, split in splits.items():
            assert hasattr(split, "unaugmented"), f"{name}: it has set_epoch, and no unaugmented()"
            plain = split.unaugmented()
            assert len(plain) == len(split), f"{name}: {len(plain)} samples without augmentation, {len(split)} with it"
            chosen = self.indices(split, 20)
            first = [plain[index] for index in chosen]
            for index, (_, label) in zip(chosen, first, strict=True):
                assert_same(torch.as_tensor(label), torch.as_tensor(split[index][1]), f"{name}[{index}]: the label")
            if hasattr(split, "set_epoch"):
                split.set_epoch(3)
            if hasattr(plain, "set_epoch"):
                plain.set_epoch(3)
            again = [plain[index][0] for index in chosen]
            assert_same(again, [x for x, _ in first], f"{name}: unaugmented samples in another epoch")
            self._compare_mixed(name, plain, first, dataset)

    def _compare_mixed(self, name: str, plain: Any, samples: Sequence[Any], dataset: Any) -> None:
        """Nothing is mixed, also where there is a generator."""
        split, few = _Targeted(plain, target_of(dataset)), samples[:NUM_BATCHED]
        drawn = put_together(split, few, dataset.is_sequence, torch.Generator().manual_seed(1))
        still = put_together(split, few, dataset.is_sequence)
        assert_same(drawn.x, still.x, f"{name}: an unaugmented batch made with a generator")
        assert_same(drawn.label, still.label, f"{name}: the labels of an unaugmented batch made with a generator")


class _Targeted:
    """A split that says what its labels are, as the splits of a task do."""

    def __init__(self, split: Any, target: Target) -> None:
        self._split, self.target = split, target

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Any:
        return self._split[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._split, name)


def _taken_apart(label: Tensor | list[Tensor], target: Target, count: int) -> list[Tensor]:
    """The labels of the samples of a batch, whose form is checked."""
    if target.kind == "items":
        assert isinstance(label, list), f"the labels of items must stay a list, got {type(label).__name__}"
        assert len(label) == count, f"{len(label)} labels for {count} samples"
        return label
    assert isinstance(label, Tensor), f"the labels of a batch must be a tensor, got {type(label).__name__}"
    axis = 1 if target.kind == "sequence" else 0
    assert label.dim() > axis, f"the labels of a batch have the shape {tuple(label.shape)}"
    assert label.shape[axis] == count, f"the labels of a batch of {count} have the shape {tuple(label.shape)}"
    return list(label.unbind(axis))


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(torch.equal(first, second))
