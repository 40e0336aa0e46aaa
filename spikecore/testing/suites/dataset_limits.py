"""Checks of a dataset in company: a fresh process, threads, samples of their own, options with an effect, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.testing import process
from spikecore.testing.compare import assert_same
from spikecore.testing.effects import Options, ignored_text, options_without_effect
from spikecore.testing.fresh import digests_elsewhere, is_importable
from spikecore.testing.suite import Suite, advice, long, skip
from spikecore.testing.threads import at_once

FEW = 6
"""Samples of a split, where a check looks at some."""


class LimitChecks(Suite):
    """The part of the dataset's suite that looks for faults which one process, thread and reader do not show."""

    kind: ClassVar[str] = "dataset"
    most_samples: ClassVar[int] = 2000
    """No check looks at more samples of a split than this; they are taken evenly over the split."""
    stand_ins: ClassVar[Path | None] = None
    """Where `prepare` put small files, if it did."""

    def indices(self, split: Any, most: int | None = None) -> list[int]:
        """Evenly spaced, the first and the last among them."""
        count, most = len(split), most or self.most_samples
        if count <= most:
            return list(range(count))
        return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})

    def digests(self) -> dict[str, list[str]]:
        """Split → the digests of its samples, of a new instance."""
        raise NotImplementedError

    @long
    @advice("derive random numbers from the Config alone: not from hash(), id(), the process or the time")
    def test_a_fresh_process_gets_the_same(self) -> None:
        """A process that was started anew, with another hash seed, reads the same samples."""
        if not is_importable(self.target):
            skip("its class is made inside a function, so no other process can import it")
        elsewhere = digests_elsewhere(self.target, self.options, self.most_samples, self.stand_ins)
        for name, digests in self.digests().items():
            assert elsewhere[name] == digests, f"{name} is another one in a fresh process"

    @advice("give a copy: `self.images[index].clone()`")
    def test_samples_are_their_own(self) -> None:
        """A sample that is changed in place changes no sample read later: none shares memory with the store."""
        dataset = self.make()
        for name in dataset.splits:
            for read in self._ways_to_read(dataset.split(name)):
                for first, again in zip(read(), read(), strict=True):
                    shares = first.numel() and first.untyped_storage().data_ptr() == again.untyped_storage().data_ptr()
                    assert not shares, (
                        f"{name}: two readings of a sample are the same memory: a transform that works in place "
                        "corrupts the data"
                    )

    def _ways_to_read(self, split: Any) -> Iterator[Callable[[], list[Tensor]]]:
        chosen = self.indices(split, FEW)
        yield lambda: [split[index][0] for index in chosen]
        if hasattr(split, "__getitems__"):
            yield lambda: [sample[0] for sample in split.__getitems__(chosen)]

    @advice("seek and read in one call under a lock, or open the file once per thread")
    def test_several_threads(self) -> None:
        """A split read by four threads at once, in different orders, gives each the right samples."""
        dataset = self.make()
        for name in dataset.splits:
            split = dataset.split(name)
            chosen = self.indices(split, FEW)
            right = {index: split[index][0] for index in chosen}

            def reader(order: list[int], split: Any = split, right: dict[int, Tensor] = right) -> Callable[[], None]:
                def read() -> None:
                    for index in order:
                        assert_same(split[index][0], right[index], f"sample {index}")

                return read

            shifts = [len(chosen) * part // 4 for part in range(4)]
            at_once([reader(chosen[shift:] + chosen[:shift]) for shift in shifts], num_calls=3)

    @long
    @advice("use the option, or remove it from Config")
    def test_every_seed_has_an_effect(self) -> None:
        """Another value of an option whose name holds `seed` gives other samples, or others in each split."""
        config = self.make().config
        seeds = [name for name in vars(config) if "seed" in name]
        if not seeds:
            skip("Config has no seed")
        ignored = options_without_effect(
            self.target.Config, config, self._with_options, self._observed, seeds, is_costly=True
        )
        assert not ignored, ignored_text(ignored)

    def _with_options(self, options: Options) -> Any:
        return self.make(**options)

    def _observed(self, dataset: Any) -> list[Tensor]:
        results = []
        for name in dataset.splits:
            split = dataset.split(name)
            results.append(torch.tensor([len(split)]))
            for index in self.indices(split, FEW):
                x, target = split[index]
                results += [x, torch.as_tensor(target)]
        return results

    @advice("leave threads, default dtype, generators, denormal numbers and grad mode to the user")
    def test_process_settings_stay(self) -> None:
        """Neither making it nor reading changes a setting of the process: threads, dtype, generators, denormals."""
        with process.unchanged("making it"):
            dataset = self.make()
        for name in dataset.splits:
            with process.unchanged(f"split({name!r})"):
                split = dataset.split(name)
            with process.unchanged(f"reading a sample of {name}"):
                split[len(split) - 1]
