"""The splits of a dataset as a task has them: samples checked on the way, validation cut from the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces.dataset import Dataset, Split, Target
from spikecore.trainers.targets import label_problem, sample_problem

FORWARDED = ("collate", "set_epoch", "unnormalised")
"""Optional members of a split that concern no index."""
REINDEXED = ("__getitems__", "batches", "labels", "unaugmented")
"""Optional members that count samples."""


@dataclass(frozen=True, eq=False)
class TaskSplit:
    """A split, or a part of one, whose samples are checked whenever they are read: inputs of its shape, finite
    and of a type that nets take; labels of the target.

    It has those optional members of a split that the given one has.

    Args:
        whole: the dataset's own split.
        target: what its labels must be.
        is_sequence: samples have a time axis.
        place: where samples come from, for messages: `digits train`.
        indices: the samples of this part, by their number in `whole`; None for all of them.
        shape: of each x, without T; None for any.
    """

    whole: Split
    target: Target
    is_sequence: bool
    place: str
    indices: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.whole) if self.indices is None else len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        number = self._number(index)
        return self._check(number, self.whole[number])

    def __getattr__(self, name: str) -> Any:
        """The optional members. Unpickling asks for others before there is a `whole`."""
        if name in FORWARDED:
            return getattr(self.whole, name)
        if name in REINDEXED:
            return getattr(self, f"_{name.strip('_')}")(getattr(self.whole, name))
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def part(self, indices: Sequence[int]) -> TaskSplit:
        """Some of the samples, by their number in the dataset's own split."""
        return replace(self, indices=tuple(indices))

    def name_of(self, index: int) -> str:
        """What messages call a sample: `digits train[7]`, by its number in the dataset's own split."""
        return f"{self.place}[{self._number(index)}]"

    def _number(self, index: int) -> int:
        """The number of a sample in the dataset's own split."""
        if self.indices is None:
            return index
        if not -len(self.indices) <= index < len(self.indices):
            raise IndexError(f"sample {index} of {len(self.indices)}")
        return self.indices[index]

    def _check(self, number: int, sample: tuple[Tensor, int | Tensor]) -> tuple[Tensor, int | Tensor]:
        problem = sample_problem(sample, self.target, self.is_sequence, self.shape)
        if problem:
            raise DatasetError(f"{self.place}[{number}]: {problem}")
        return sample

    def _getitems(self, several: Any) -> Any:
        def read(indices: Sequence[int]) -> list[tuple[Tensor, int | Tensor]]:
            numbers = [self._number(int(index)) for index in indices]
            samples = several(numbers)
            if len(samples) != len(numbers):
                raise DatasetError(
                    f"{self.place}: its __getitems__ must give a sample for each of {len(numbers)} indices, in their "
                    f"order, got {len(samples)}"
                )
            return [self._check(number, sample) for number, sample in zip(numbers, samples, strict=True)]

        return read

    def _batches(self, batches: Any) -> Any:
        if self.indices is None:
            return batches
        places = {number: place for place, number in enumerate(self.indices)}

        def renumber(batch: Sequence[int]) -> list[int]:
            return [places[int(number)] for number in batch]

        def draw(batch_size: int, generator: torch.Generator) -> list[list[int]]:
            drawn = batches(batch_size, generator, self.indices)
            return [renumber(batch) for batch in drawn]

        return draw

    def _labels(self, labels: Tensor) -> Tensor:
        return labels if self.indices is None else labels[torch.tensor(self.indices, dtype=torch.int64)]

    def _unaugmented(self, unaugmented: Any) -> Any:
        return lambda: replace(self, whole=unaugmented())


def target_of(dataset: Dataset) -> Target:
    """What the labels of a dataset are.

    Raises:
        DatasetError: its `num_outputs` is no number of outputs.
    """
    num_outputs: object = dataset.num_outputs
    if not isinstance(num_outputs, int) or isinstance(num_outputs, bool) or num_outputs < 1:
        raise DatasetError(
            f"dataset {_title(dataset)!r}: its num_outputs must be an int of 1 or more, the number of classes or "
            f"values, got {num_outputs!r} ({type(num_outputs).__name__})"
        )
    return Target(dataset.capabilities.target, num_outputs)


def task_split(dataset: Dataset, name: str) -> TaskSplit:
    """The dataset's split of this name, its samples checked.

    Raises:
        DatasetError: there is no such split, or it holds no sample: no number could be measured on it.
    """
    title = _title(dataset)
    if name not in dataset.splits:
        raise DatasetError(
            f"dataset {title!r} has no split {name!r} (its splits: {', '.join(dataset.splits) or 'none'}): a run "
            "trains on 'train' and is measured on 'test'; let `splits` name both and `split(name)` give them"
        )
    whole = dataset.split(name)
    if len(whole) == 0:
        raise DatasetError(
            f"{title} {name}: expected samples, got a split without any: see where the dataset reads them from and "
            "which options select them; a split 'val' without samples is left out of `splits`"
        )
    return TaskSplit(
        whole, target_of(dataset), dataset.is_sequence, f"{title} {name}", shape=tuple(dataset.sample_shape)
    )


def _title(dataset: Dataset) -> str:
    return str(getattr(dataset, "name", "") or type(dataset).__name__.lower())


def unaugmented(split: Split) -> Split:
    """The same samples as a net is evaluated on: without augmentation."""
    plain = getattr(split, "unaugmented", None)
    if plain is None:
        return split
    same: Split = plain()
    return same


def cut_validation(train: TaskSplit, share: float, seed: int, classes: Sequence[str] = ()) -> tuple[TaskSplit, Split]:
    """Training and validation part of a training split, drawn with the seed; of each class the same share.

    Args:
        train: the whole of it.
        share: of the samples that go to validation, rounded; of each class, where labels are classes.
        seed: which ones.
        classes: their names.

    Returns:
        Both in the order of `train`; the validation part is not augmented.

    Raises:
        OptionError: the share leaves a class without samples in one of the two, or one of the two empty.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen: set[int] = set()
    for name, members in _groups(train, classes):
        count = int(share * len(members) + 0.5)
        if not 0 < count < len(members):
            raise OptionError(_cure(name, len(members), share))
        order = torch.randperm(len(members), generator=generator)[:count]
        chosen.update(members[place] for place in order.tolist())
    kept = [number for number in range(len(train)) if number not in chosen]
    return train.part(kept), unaugmented(train.part(sorted(chosen)))


def _groups(train: TaskSplit, classes: Sequence[str]) -> list[tuple[str, list[int]]]:
    """What is cut by itself, by name: each class, or all samples where labels are no classes."""
    if train.target.kind != "class":
        return [("the training split", list(range(len(train))))]
    groups: dict[int, list[int]] = {}
    for number, label in enumerate(_labels(train)):
        groups.setdefault(label, []).append(number)
    named: list[tuple[str, list[int]]] = []  # not by name alone, which two classes may share
    for label in sorted(groups):
        name = repr(classes[label]) if label < len(classes) else str(label)
        named.append((f"class {name}", groups[label]))
    return named


def _labels(train: TaskSplit) -> list[int]:
    """All labels, checked: read from the split's `labels` where it has them, else from every sample."""
    known = getattr(train, "labels", None)
    if known is None:
        known = [train[number][1] for number in range(len(train))]
    labels = [int(label) for label in known]
    for number, label in enumerate(labels):
        problem = label_problem(label, train.target)
        if problem:
            raise DatasetError(f"{train.place}[{number}]: {problem}")
    return labels


def _cure(name: str, size: int, share: float) -> str:
    head = f"val_share = {share:g} of the {size} training samples of {name} leaves none to "
    where = "validate" if int(share * size + 0.5) == 0 else "train"
    if size < 2:
        return (
            f"{head}{where}, and one sample cannot do both: add samples of it, use a dataset with a split 'val', or "
            "set trainer.val_share = 0 to train without validation"
        )
    low, high = 0.5 / size, 1 - 0.5 / size
    return (
        f"{head}{where}: set trainer.val_share from {_rounded_up(low)} to below {high:.3g}, use a dataset with a split "
        "'val', or set trainer.val_share = 0 to train without validation"
    )


def _rounded_up(share: float) -> str:
    """Three digits that are not below the share."""
    text = f"{share:.3g}"
    return text if float(text) >= share else f"{share * 1.01:.3g}"
