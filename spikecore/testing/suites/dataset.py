"""Checks of a dataset: what its splits hold, that they stay the same, and that they reach worker processes."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spikecore.datasets.downloads import offline
from spikecore.errors import SpikeError
from spikecore.interfaces.dataset import DatasetInfo
from spikecore.testing.compare import assert_same
from spikecore.testing.stand_ins import no_network, stand_ins
from spikecore.testing.suite import advice, needs, skip
from spikecore.testing.suites.dataset_targets import TargetChecks

DUPLICATES = 0.01
"""Real data hold a few samples twice; that share may be in both splits."""


class DatasetSuite(TargetChecks):
    """Lengths, shapes, dtypes, labels; the same index gives the same sample, also in a worker; splits are disjoint."""

    kind: ClassVar[str] = "dataset"
    minimum = 12
    _prepared: ClassVar[ExitStack] = ExitStack()

    @classmethod
    def prepare(cls, data: Path) -> Mapping[str, Any] | None:
        """For a dataset that others recorded: put small files of the genuine format where it looks for the real ones.

        Called once, before the checks. While they run, `data` is `$SPIKECORE_DATA`, the files that are in it count as
        the published ones (`spikecore.testing.stand_ins`), and every network connection is refused.

        Args:
            data: an empty directory.

        Returns:
            Options that are known only now, such as `root`.
        """
        return None

    @classmethod
    def setup_class(cls) -> None:
        """pytest calls it before the checks of a class."""
        if not any("prepare" in vars(base) for base in cls.__mro__[: cls.__mro__.index(DatasetSuite)]):
            return
        with ExitStack() as stack:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spike-", ignore_cleanup_errors=True)))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("SPIKECORE_DATA", str(data))
            patch.setattr(cls, "options", {**cls.options, **(cls.prepare(data) or {})})
            patch.setattr(cls, "stand_ins", data)
            stack.enter_context(stand_ins(data))
            stack.enter_context(no_network())
            cls._prepared = stack.pop_all()

    @classmethod
    def teardown_class(cls) -> None:
        """pytest calls it after the checks of a class."""
        cls._prepared.close()
        cls._prepared = ExitStack()

    def test_info(self) -> None:
        """Title, licence and citation are given; classes and sample shape agree with the dataset's own."""
        dataset = self.make()
        info = dataset.info
        assert isinstance(info, DatasetInfo), f"info is {type(info).__name__}"
        for name in ("title", "licence", "citation"):
            assert str(getattr(info, name)).strip(), f"info.{name} is empty"
        is_named = len(info.classes) == dataset.num_outputs
        if dataset.capabilities.target == "value":
            is_named = is_named or not info.classes  # a value need not have a name
        assert is_named or dataset.capabilities.target in ("sequence", "items"), (
            f"{len(info.classes)} classes are named, num_outputs is {dataset.num_outputs}"
        )
        assert len(set(info.classes)) == len(info.classes), "two classes have one name"
        shape = info.sample_shape[1:] if len(info.sample_shape) > len(dataset.sample_shape) else info.sample_shape
        fits = all(ours in (None, size) for ours, size in zip(shape, dataset.sample_shape, strict=True))
        assert fits, f"info.sample_shape is {info.sample_shape}, sample_shape {dataset.sample_shape}"

    def test_splits(self) -> None:
        """`train` and `test` are there and not empty; another name is refused."""
        dataset = self.make()
        assert {"train", "test"} <= set(dataset.splits), f"splits are {dataset.splits}"
        for name in dataset.splits:
            assert len(dataset.split(name)) > 0, f"{name} is empty"
        with pytest.raises((SpikeError, ValueError, KeyError)):
            dataset.split("no such split")

    @advice("raise IndexError where index >= len(self)")
    def test_length(self) -> None:
        """`len` is the number of samples: the last index works, the next raises IndexError."""
        dataset = self.make()
        for name in dataset.splits:
            split = dataset.split(name)
            split[len(split) - 1]
            with pytest.raises(IndexError):
                split[len(split)]

    def test_samples(self) -> None:
        """x is a finite float32 tensor of `sample_shape`, with a time axis in front in a sequence; static or uint8."""
        dataset = self.make()
        for name in dataset.splits:
            split = dataset.split(name)
            for index in self.indices(split, 100):
                x, _ = split[index]
                where = f"{name}[{index}]"
                assert isinstance(x, Tensor), f"{where}: x is {type(x).__name__}"
                allowed = (torch.float32,) if dataset.is_sequence else (torch.float32, torch.uint8)
                assert x.dtype in allowed, f"{where}: x is {x.dtype}, expected {' or '.join(map(str, allowed))}"
                shape = x.shape[1:] if dataset.is_sequence else x.shape
                assert shape == tuple(dataset.sample_shape), f"{where}: expected {dataset.sample_shape}, got {shape}"
                assert not dataset.is_sequence or len(x) > 0, f"{where}: no steps"
                assert x.dtype == torch.uint8 or x.isfinite().all(), f"{where}: x holds NaN or infinity"

    @advice("derive randomness from the seed and the index, as torch.Generator().manual_seed(seed + index)")
    def test_same_index_same_sample(self) -> None:
        """The same index gives the same sample, whatever was read in between and whatever the seed."""
        dataset = self.make()
        for name in dataset.splits:
            split = dataset.split(name)
            chosen = self.indices(split, 20)
            first = [split[index] for index in chosen]
            torch.manual_seed(99)
            for index in reversed(chosen):
                split[index]
            again = [split[index] for index in chosen]
            assert_same([x for x, _ in again], [x for x, _ in first], f"samples of {name} read again")
            assert_same(_labels(again), _labels(first), f"labels of {name} read again")

    @advice("shuffle with a generator that is seeded from the Config, and sort the names of files")
    def test_splits_are_stable(self) -> None:
        """Another instance with the same options has the same splits, whatever the seed; it draws no random numbers."""
        before = torch.get_rng_state()
        first = self.digests()
        assert torch.equal(before, torch.get_rng_state()), "it drew from torch's global generator"
        torch.manual_seed(99)
        for name, digests in first.items():
            assert self._digests(self.make(), name) == digests, f"{name} is another one in a second instance"

    @advice("cut the indices once, and give each split its own part")
    def test_splits_are_disjoint(self) -> None:
        """No split holds the samples of another, but for a few that the data hold twice."""
        dataset = self.make()
        digests_of = {name: set(self._digests(dataset, name)) for name in dataset.splits}
        for name, other in itertools.combinations(digests_of, 2):
            digests, others = digests_of[name], digests_of[other]
            shared, smaller = len(digests & others), min(len(digests), len(others))
            assert shared <= DUPLICATES * smaller, f"{shared} of {smaller} samples are in {name} and in {other}"

    def digests(self) -> dict[str, list[str]]:
        """See `LimitChecks`."""
        return {name: self._digests(self.make(), name) for name in self.make().splits}

    def _digests(self, dataset: Any, name: str) -> list[str]:
        split = dataset.split(name)
        return [_digest(*split[index]) for index in self.indices(split)]

    @advice("hold no open files, locks or lambdas in a split; open them on first use")
    def test_pickles(self) -> None:
        """A split that was pickled gives the same samples."""
        dataset = self.make()
        for name in dataset.splits:
            split = dataset.split(name)
            twin = pickle.loads(pickle.dumps(split))
            assert len(twin) == len(split)
            for index in self.indices(split, 20):
                assert_same(twin[index][0], split[index][0], f"{name}[{index}] after pickle")
                assert_same(
                    _labels([twin[index]]), _labels([split[index]]), f"the label of {name}[{index}] after pickle"
                )

    def test_workers_get_the_same(self) -> None:
        """Two worker processes of a DataLoader give what this process gives, in order."""
        dataset = self.make()
        split = torch.utils.data.Subset(dataset.split("test"), range(min(8, len(dataset.split("test")))))
        loaded = [sample for batch in DataLoader(split, 2, num_workers=2, collate_fn=_as_it_is) for sample in batch]
        assert_same([x for x, _ in loaded], [split[i][0] for i in range(len(split))], "samples from workers")
        assert_same(_labels(loaded), _labels([split[i] for i in range(len(split))]), "labels from workers")

    @needs("variable_length", False)
    def test_equal_lengths(self) -> None:
        """Samples have one shape, so they can be stacked."""
        dataset = self.make()
        for name in dataset.splits:
            split = dataset.split(name)
            shapes = {tuple(split[index][0].shape) for index in self.indices(split, 200)}
            assert len(shapes) == 1, f"{name}: shapes {sorted(shapes)[:4]}, but capabilities.variable_length is False"

    @needs("variable_length")
    def test_only_sequences_vary(self) -> None:
        """A dataset whose samples differ in T is one of sequences, and its splits have a `collate` that pads them."""
        dataset = self.make()
        assert dataset.is_sequence, "capabilities.variable_length is True, is_sequence is False"
        for name in dataset.splits:
            assert hasattr(dataset.split(name), "collate"), f"{name}: samples differ in T, and it has no collate"

    def test_collate(self) -> None:
        """`collate`, where a split has it: time first, samples as they are, padding marked; random by the generator."""
        dataset = self.make()
        splits = {name: dataset.split(name) for name in dataset.splits}
        if not any(hasattr(split, "collate") for split in splits.values()):
            skip("its splits have no collate: samples are stacked")
        for name, split in splits.items():
            samples = [split[index] for index in self.indices(split, 5)]
            before = torch.get_rng_state()
            x, label, mask = split.collate(samples, None)
            assert torch.equal(before, torch.get_rng_state()), f"{name}: collate drew from torch's global generator"
            axis = 1 if dataset.is_sequence else 0
            count = label.shape[1] if dataset.capabilities.target == "sequence" else len(label)
            assert x.shape[axis] == count == len(samples), f"{name}: x {tuple(x.shape)}, {count} labels"
            for place, (own, _) in enumerate(samples):
                sample = x[:, place] if dataset.is_sequence else x[place]
                if dataset.is_sequence:
                    marked = torch.ones(len(x), dtype=torch.bool) if mask is None else mask[:, place]
                    assert int(marked.sum()) == len(own), f"{name}: {len(own)} steps, {int(marked.sum())} are marked"
                    sample = sample[marked]
                assert_same(sample.to(own.dtype), own, f"{name}: a sample after collate")
            again = [split.collate(samples, torch.Generator().manual_seed(seed)) for seed in (1, 1)]
            assert_same(list(again[0][:2]), list(again[1][:2]), f"{name}: two batches made with the same seed")

    def test_epochs(self) -> None:
        """`set_epoch`, where a split has it, brings the same samples back."""
        splits = [(name, self.make().split(name)) for name in self.make().splits]
        if not any(hasattr(split, "set_epoch") for _, split in splits):
            skip("its splits have no set_epoch: samples are the same in every epoch")
        for name, split in splits:
            epochs = []
            for epoch in (0, 1, 0):
                split.set_epoch(epoch)
                epochs.append([split[index][0] for index in self.indices(split, 10)])
            assert_same(epochs[2], epochs[0], f"{name}: the samples of epoch 0, read after those of epoch 1")

    def test_several_at_once(self) -> None:
        """`__getitems__`, where a split has it, gives what indexing gives, and refuses what that refuses."""
        splits = [(name, self.make().split(name)) for name in self.make().splits]
        if not any(hasattr(split, "__getitems__") for _, split in splits):
            skip("its splits have no __getitems__: samples are read one by one")
        for name, split in splits:
            chosen = self.indices(split, 10)[::-1]
            at_once, wanted = split.__getitems__(chosen), [split[index] for index in chosen]
            assert_same([x for x, _ in at_once], [x for x, _ in wanted], f"samples of {name} read at once")
            assert_same(_labels(at_once), _labels(wanted), f"labels of {name} read at once")
            with pytest.raises(IndexError):
                split.__getitems__([0, len(split)])

    @needs("embedded")
    def test_needs_no_network(self) -> None:
        """Every split is read with all connections refused."""
        with no_network():
            dataset = self.make()
            for name in dataset.splits:
                dataset.split(name)[0]

    @needs("embedded", False)
    @advice(
        "fetch files with spikecore.datasets.fetch; before any other download ask spikecore.datasets.is_offline(), and "
        "raise NotDownloadedError if it is so"
    )
    def test_downloads_nothing_when_it_must_not(self) -> None:
        """Inside `offline`, as in a dry run, a split whose files are not here is refused without a connection."""
        options = {name.name for name in dataclasses.fields(self.target.Config)}
        with tempfile.TemporaryDirectory(prefix="spike-") as folder, pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPIKECORE_DATA", folder)
            elsewhere = {"root": str(Path(folder, "nothing"))} if "root" in options else {}
            with offline() as refused:
                for name in self.make().splits:
                    with suppress(SpikeError):  # it is not here, and one of a folder says so when it is made
                        self.make(**elsewhere).split(name)
            assert not refused, f"it wanted to connect to {refused[0]} while nothing may be downloaded"

    def test_construction_reads_nothing(self) -> None:
        """`info`, the number of outputs, the shape and the names of splits are known before any file is there."""
        with no_network():
            dataset = self.make()
            assert dataset.num_outputs >= 1
            assert all(size >= 1 for size in dataset.sample_shape)
            assert isinstance(dataset.is_sequence, bool)
            assert dataset.splits
            assert dataset.info.title


def _digest(x: Tensor, label: int | Tensor) -> str:
    text = f" {tuple(x.shape)} {label.tolist() if isinstance(label, Tensor) else label}"
    return hashlib.sha256(x.contiguous().numpy().tobytes() + text.encode()).hexdigest()


def _labels(samples: Sequence[tuple[Tensor, int | Tensor]]) -> list[Tensor]:
    return [torch.as_tensor(label) for _, label in samples]


def _as_it_is(samples: list[Any]) -> list[Any]:
    """For workers: a batch as a list of samples."""
    return samples
