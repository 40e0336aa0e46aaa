"""Checks of a model at length and in company: long sequences, threads, memory, settings, options with an effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.nn import set_step_mode, streaming
from spikecore.testing import process
from spikecore.testing.compare import assert_close
from spikecore.testing.effects import Options, ignored_text, options_without_effect
from spikecore.testing.lifetimes import assert_nothing_is_kept
from spikecore.testing.suite import Suite, advice, long, needs
from spikecore.testing.threads import at_once

LONG, PART = 300, 13
"""Steps of a long sequence (more than 256), and of the parts it is held against."""


class LimitChecks(Suite):
    """The part of the model's suite that looks for faults which short inputs and single calls do not show."""

    kind: ClassVar[str] = "model"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The two input shapes."""
        raise NotImplementedError

    def build(self, shape: tuple[int, ...] | None = None, num_outputs: int = 5, **options: Any) -> Any:
        """A net of LIF neurons on the reference backend."""
        raise NotImplementedError

    def input(self, shape: tuple[int, ...] | None = None, batch: int = 2, num_steps: int = 3) -> Tensor:
        """`[T, B, *shape]`, strong enough for the output to depend on it."""
        raise NotImplementedError

    def run(self, net: nn.Module, x: Tensor) -> Tensor:
        """`[T, B, num_outputs]`."""
        raise NotImplementedError

    @long
    @advice("look for fixed numbers of steps: buffers of one length, counters of 8 bits")
    @needs("step_modes", "multi")
    @needs("step_modes", "single")
    def test_long_sequences(self) -> None:
        """300 steps at once give what they give in parts of 13."""
        net, x = self.build(), self.input(batch=1, num_steps=LONG)
        set_step_mode(net, "multi")
        with torch.no_grad():
            whole = net(x)
            with streaming(net):
                parts = torch.cat([net(part) for part in torch.split(x, PART)])
        assert whole.any(), "every output is 0: this proves nothing"
        assert_close(whole, parts, f"the output of {LONG} steps at once")

    @advice("honour the option, or remove it from Config")
    def test_every_option_has_an_effect(self) -> None:
        """For each option some other value changes the parameters' shapes or the output: evaluated, in training, and
        evaluated after that, as running statistics show."""
        config = self.build().config
        names = list(vars(config))
        ignored = options_without_effect(self.target.Config, config, self._with_options, self._observed, names)
        assert not ignored, ignored_text(ignored)

    def _with_options(self, options: Options) -> Any:
        torch.manual_seed(0)
        return self.build(**options)

    def _observed(self, net: Any) -> list[Tensor]:
        x = self.input(batch=4)
        results = [torch.zeros(parameter.shape) for parameter in net.parameters()]
        for training in (False, True, False):
            torch.manual_seed(1)
            results.append(self.run(net.train(training), x).detach())
        return results

    @advice("keep what belongs to one call in local variables, not on the module")
    @needs("step_modes", "multi")
    def test_several_threads(self) -> None:
        """One net called from four threads at once, with batches of different sizes, gives each its own output."""
        # Where threads share parameters that want gradients, torch 2.13 may wait for ever; see the suite of backends.
        net = self.build().requires_grad_(False)
        set_step_mode(net, "multi")
        inputs = [self.input(batch=1 + index % 3) * (1 + index / 8) for index in range(4)]

        def checked(x: Tensor, right: Tensor) -> Callable[[], None]:
            return lambda: assert_close(net(x), right, "the output")

        at_once([checked(x, net(x)) for x in inputs], num_calls=5)

    @advice("keep no input, output or graph on the module or in a list")
    def test_results_are_released(self) -> None:
        """Input and output are freed with the last reference to them, and calls do not add up in memory."""
        net = self.build()

        def call() -> list[Tensor]:
            x = self.input()
            with torch.no_grad():
                return [x, self.run(net, x)]

        assert_nothing_is_kept(call, type(net).__name__)

    @advice("leave threads, default dtype, generators, denormal numbers and grad mode to the user")
    def test_process_settings_stay(self) -> None:
        """Nothing it does changes a setting of the process: threads, default dtype, generators, denormals, modes."""
        with process.unchanged("making it"):
            net = self.build()
        x = self.input()
        for training in (True, False):
            with process.unchanged(f"a call with training={training}"):
                out = self.run(net.train(training), x)
            with process.unchanged("the backward pass"):
                out.sum().backward()  # type: ignore[no-untyped-call]
