"""Checks of an encoder in company: wide inputs, threads, memory, settings, options with an effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from spikecore.testing import process
from spikecore.testing.compare import assert_same
from spikecore.testing.effects import Options, ignored_text, options_without_effect
from spikecore.testing.lifetimes import assert_nothing_is_kept
from spikecore.testing.suite import Suite, advice, long, needs
from spikecore.testing.threads import at_once

WIDE, NARROW = 1801, 25
"""Samples of a wide input (of 40 values, so more than 70 000), and of the parts it is held against."""


class LimitChecks(Suite):
    """The part of the encoder's suite that looks for faults which small inputs and single calls do not show."""

    kind: ClassVar[str] = "encoder"

    def input(self, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values all over the range, its ends included."""
        raise NotImplementedError

    def encode(self, encoder: Any, x: Tensor, seed: int = 0) -> Tensor:
        """With a fresh generator of this seed."""
        out: Tensor = encoder(x, Generator().manual_seed(seed))
        return out

    @long
    @advice("look for fixed sizes: buffers, blocks, indices of 16 bits")
    @needs("stochastic", False)
    def test_wide_inputs(self) -> None:
        """More than 70 000 values at once give what they give in parts of a thousand."""
        encoder, x = self.make(), self.input(WIDE, 4, 10)
        parts = [self.encode(encoder, part) for part in torch.split(x, NARROW)]
        assert_same(self.encode(encoder, x), torch.cat(parts, 1), f"the output of {x.numel()} values at once")

    @advice("honour the option, or remove it from Config")
    def test_every_option_has_an_effect(self) -> None:
        """For each option some other value changes the output or what is decoded, alone or with others."""
        config = self.make().config
        names = list(vars(config))
        ignored = options_without_effect(self.target.Config, config, self._with_options, self._observed, names)
        assert not ignored, ignored_text(ignored)

    def _with_options(self, options: Options) -> Any:
        return self.make(**options)

    def _observed(self, encoder: Any) -> list[Tensor]:
        results = []
        for x in (self.input(5, 3, 8, seed=1), self.input(7, 4)):
            for training in (False, True):
                out = self.encode(encoder.train(training), x)
                results.append(out)
                if encoder.capabilities.decodable:
                    results.append(encoder.decode(out))
        return results

    @advice("keep what belongs to one call in local variables, not on the module")
    def test_several_threads(self) -> None:
        """One encoder called from four threads at once, with batches of different sizes, gives each its own."""
        encoder = self.make()
        inputs = [self.input(2 + seed % 3, 3, 20, seed=seed) for seed in range(4)]

        def checked(x: Tensor, right: Tensor) -> Callable[[], None]:
            return lambda: assert_same(self.encode(encoder, x), right, "the output")

        at_once([checked(x, self.encode(encoder, x)) for x in inputs])

    @advice("keep no input or output on the module or in a list")
    def test_results_are_released(self) -> None:
        """Input and output are freed with the last reference to them, and calls do not add up in memory."""
        encoder = self.make()

        def call() -> list[Tensor]:
            x = self.input()
            return [x, self.encode(encoder, x)]

        assert_nothing_is_kept(call, type(encoder).__name__)

    @advice("leave threads, default dtype, generators, denormal numbers and grad mode to the user")
    def test_process_settings_stay(self) -> None:
        """Nothing it does changes a setting of the process: threads, default dtype, generators, denormals, modes."""
        with process.unchanged("making it"):
            encoder = self.make()
        with process.unchanged("a call"):
            out = self.encode(encoder, self.input())
        if encoder.capabilities.decodable:
            with process.unchanged("decoding"):
                encoder.decode(out)
