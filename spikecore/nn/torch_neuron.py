"""`TorchNeuron`: base of the neurons that the neuron language cannot write.

They are stateful torch modules with the options, step modes and state of every other neuron; each says in its docstring
why it is not elementwise. `chosen` tells a run's record where they ran.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from spikecore.backends.memory_format import formatted_like, one_step
from spikecore.backends.selection import AUTO, REFERENCE, Choice
from spikecore.errors import BackendError, OptionError, ShapeError
from spikecore.interfaces.component import Configurable, make_config, refuse_positional
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.half import check_input, widened
from spikecore.nn.state import Stateful


class TorchNeuron(Configurable, Stateful):
    """A subclass gives `initial_state` and `run(x, state) -> (out, final state)` over a sequence.

    Args:
        step_mode: `multi` takes `[T, B, ...]`, `single` takes `[B, ...]` and keeps state between calls.
        backend: `auto` or `torch`; no other backend runs a neuron that is not elementwise.
        options: the fields of `Config`.

    Raises:
        OptionError: a wrong option, or a step mode that the neuron does not have.
        BackendError: another backend was named.
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(elementwise=False)
    may_be_infinite: ClassVar[tuple[str, ...]] = ()
    extra_keywords = ("step_mode", "backend")
    why_torch: ClassVar[str] = "it is not elementwise"
    config: Any

    def __init__(self, *args: Any, step_mode: str = "multi", backend: str = "auto", **options: Any) -> None:
        refuse_positional(type(self), args)
        Stateful.__init__(self)
        if step_mode not in self.capabilities.step_modes:
            raise OptionError(
                f"{type(self).__name__} runs in step_mode {' or '.join(map(repr, self.capabilities.step_modes))}, "
                f"got {step_mode!r}"
            )
        if backend not in (AUTO, REFERENCE):
            raise BackendError(
                f"{type(self).__name__} cannot run on backend {backend!r}: {self.why_torch}, so torch alone runs it; "
                "use backend='torch' or 'auto'"
            )
        self.config = make_config(type(self), options)
        self.step_mode = step_mode
        self.backend = backend
        self.chosen: Choice | None = None

    def run(self, x: Tensor, state: dict[str, Tensor], **given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` `[T, B, ...]`, in float32 or wider, and the state before it → the output and the state after it."""
        raise NotImplementedError

    def forward(self, x: Tensor, **given: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → the output, of the same shape, dtype and memory format.

        Args:
            x: the input.
            given: handed to `run`, which says what it is.

        Raises:
            TypeError: `x` is not floating point, of 16 bits at least, or it is sparse.
            OptionError: the neuron does not run in its step mode.
            ShapeError: the rank, the number of steps or the number of channels does not suit.
            StateShapeError: kept state belongs to another batch shape, device or dtype.
        """
        check_input(type(self).__name__, x)
        if self.step_mode not in self.capabilities.step_modes:
            raise OptionError(f"{type(self).__name__} does not run in step_mode {self.step_mode!r}: {self.why_torch}")
        multi = self.step_mode == "multi"
        if x.dim() < 1 + multi:
            form = "[T, B, ...]" if multi else "[B, ...]"
            raise ShapeError(
                f"{type(self).__name__} in step_mode {self.step_mode!r} takes {form}, got {tuple(x.shape)}: add the "
                "missing axis with unsqueeze(0), or check set_step_mode(net, ...)"
            )
        sequence = x if multi else x.unsqueeze(0)
        state = self.state_for(one_step(sequence))
        self.chosen = Choice(REFERENCE, self.why_torch)
        out, final = self.run(widened(sequence), state, **given)
        out = formatted_like(out.to(x.dtype), sequence, 1)
        (out,) = self.keep(final, out if multi else out.squeeze(0))
        return out

    def check_channels(self, x: Tensor, expected: int) -> None:
        """Refuse a single step `[B, C, ...]` whose C is not the expected one.

        Raises:
            ShapeError: it is not.
        """
        if x.dim() < 2 or x.shape[1] != expected:
            raise ShapeError(
                f"{type(self).__name__} was made for {expected} channels along axis 1 of a step, "
                f"the step's input is {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        return f"{self.config!r}, step_mode={self.step_mode!r}"
