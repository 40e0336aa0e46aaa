"""What is measured: one neuron on input of one shape, and the call that is timed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import OptionError, PluginError
from spikecore.registry import create, load, registry

FORWARD = "forward"
TRAINING = "forward+backward"
STEP = "single step"

SHAPES = ((4, 32, 16384), (16, 32, 4096), (128, 16, 1024), (500, 16, 512), (1000, 1, 256))
BEYOND_CACHES = (64, 64, 16384)
QUICK_SHAPES = ((4, 4, 256), (32, 2, 64))
MANY_NEURONS_SHAPE = (16, 32, 4096)
STEP_SHAPE = (1, 1, 256)


@dataclass(frozen=True)
class Case:
    """A neuron and the shape, place and type of its input.

    Args:
        neuron: its registered name.
        shape: `[T, B, N]`.
        device: where.
        dtype: of the input.
    """

    neuron: str
    shape: tuple[int, ...]
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)
    dtype: torch.dtype = torch.float32

    @property
    def num_elements(self) -> int:
        """Element-steps."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size of the input."""
        return self.num_elements * self.dtype.itemsize

    @property
    def title(self) -> str:
        """`T,B,N`."""
        return ",".join(map(str, self.shape))

    def tiny(self) -> Case:
        """The same on a handful of elements."""
        return replace(self, shape=(2, 1, 3))

    def pack(self) -> list[Any]:
        """For JSON."""
        return [self.neuron, self.shape, str(self.device), str(self.dtype).removeprefix("torch.")]

    @classmethod
    def unpack(cls, packed: Sequence[Any]) -> Case:
        """What `pack` gave."""
        neuron, shape, device, dtype = packed
        return cls(neuron, tuple(shape), torch.device(device), getattr(torch, dtype))

    def input(self, seed: int = 0) -> Tensor:
        """Normal values around 0.5: a default LIF fires in about a tenth of its steps."""
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(self.shape, generator=generator) + 0.5).to(self.device, self.dtype)

    def grad(self, seed: int = 1) -> Tensor:
        """A gradient of the output: of full rank and contiguous, as a layer behind would send it."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.shape, generator=generator).to(self.device, self.dtype)


@dataclass(frozen=True)
class Runner:
    """One candidate, ready to be called.

    Args:
        call: native input → native output.
        params: what gradients are wanted for besides the input.
        prepare: `[T, B, N]` → native input; not timed, differentiable.
        finish: native output → `[T, B, N]`.
        module: the neuron itself, where it is one of ours.
    """

    call: Callable[[Tensor], Tensor]
    params: tuple[Tensor, ...] = ()
    prepare: Callable[[Tensor], Tensor] = lambda x: x
    finish: Callable[[Tensor], Tensor] = lambda out: out
    module: nn.Module | None = None

    def once(self, measure: str, x: Tensor, grad: Tensor) -> Callable[[], object]:
        """One call of a pass, as it is timed; `call_context` goes around many of them.

        Args:
            measure: which pass.
            x: `[T, B, N]`.
            grad: of the output, `[T, B, N]`.
        """
        given = self.prepare(x).detach().contiguous()
        if measure != TRAINING:
            return lambda: self.call(given)
        given.requires_grad_()
        incoming = self.prepare(grad).detach().contiguous()  # in the layout of the native output
        wanted = [given, *self.params]
        return lambda: torch.autograd.grad(self.call(given), wanted, incoming)


def call_context(measure: str) -> torch.no_grad | torch.enable_grad:
    """With gradients only where they are measured."""
    return torch.enable_grad() if measure == TRAINING else torch.no_grad()


def options_of(case: Case) -> dict[str, Any]:
    """Options for benchmarks: the defaults and the required ones, with a detached reset if the neuron offers it."""
    options = required_options(case)
    fields = {field.name for field in dataclasses.fields(load("neuron", case.neuron).Config)}
    if "detach_reset" in fields:
        options["detach_reset"] = True
    return options


def required_options(case: Case) -> dict[str, Any]:
    """Options that depend on the input: T, for a neuron that works for one T only."""
    if load("neuron", case.neuron).capabilities.fixed_num_steps:
        return {"num_steps": case.shape[0]}
    return {}


def is_elementwise(component: Any) -> bool:
    """Whether backends can run this neuron."""
    from spikecore.nn import Neuron

    return isinstance(component, type) and issubclass(component, Neuron) and component.capabilities.elementwise


def elementwise_neurons() -> tuple[list[str], dict[str, str]]:
    """Every registered neuron that backends can run, by name, and why others are left out, unless they are blocked."""
    names: list[str] = []
    left_out: dict[str, str] = {}
    for entry in registry().components("neuron"):
        if entry.status == "blocked":
            continue
        name = entry.name if entry.status == "ok" else entry.qualified
        try:
            if is_elementwise(load("neuron", name)):
                create("neuron", name, **options_of(Case(name, QUICK_SHAPES[0])))
                names.append(name)
            else:
                left_out[name] = "not elementwise: it stays a torch module on every backend"
        except (PluginError, OptionError) as error:  # such as a required option, which has no sensible value here
            left_out[name] = str(error)
    return names, left_out
