"""Backend: runs traced neurons. It knows no neuron by name; it prints or interprets their graphs.

A neuron is traced once into a `dynamics.Program`, found again by `key`, the content hash of its equations. Core wraps
the two methods below as one pair of torch operators, with autograd, vmap, fake tensors and autocast.

    T, N    steps and elements per step (`x` is `[T, B, ...]`; per-channel parameters have size C and follow axis 2)
    state   float32 for half-precision x, else x's dtype; each `[B, ...]`
    out     x's dtype; never aliases an input; all that a backend returns is contiguous

A backend may offer one more method, which core calls for one step without gradient (the rest costs more than the step):

    step(key, x, states, params) -> (out, final states), or None where it is for `run`
    x, out  `[B, ...]`; nothing else differs from `run` with T = 1

Inputs have any strides. A gradient that is one number for all elements may come expanded (strides 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from spikecore.dynamics import Program


@dataclass(frozen=True)
class BackendCapabilities:
    """What a backend promises.

    Args:
        priority: `backend="auto"` tries higher first; the reference has 0.
        devices: torch device types it runs on.
        dtypes: input dtypes it accepts.
        deterministic: equal inputs give equal bits, whatever the number of threads.
        affine_neuron: also fuses the scale and shift of `ConvBNNeuron` and `LinearBNNeuron` into the neuron.
    """

    priority: int = 0
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    deterministic: bool = True
    affine_neuron: bool = False


@dataclass(frozen=True)
class Support:
    """Whether a backend can run something, and why not. True when it can."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@runtime_checkable
class Backend(Protocol):
    """What callers rely on. The constructor raises `PluginUnavailable` where the backend cannot work at all."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[BackendCapabilities]

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Can this program run on this device with inputs of this dtype?"""

    def learn(self, program: Program) -> None:
        """Make a program callable by its key. Called before `run`; cheap, and again for a known key without effect."""

    def saved_like(self, key: str, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """Empty tensors with the shapes and dtypes of what `run` saves; asked with fake tensors too."""

    def reads_input(self, key: str, saved: Sequence[Tensor]) -> bool:
        """Does `run_bwd` read x, after a `run` that saved this? Otherwise x is not kept for it: it gets a stand-in of
        the same shape and dtype."""

    def run(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Run the program over `x` `[T, B, ...]`.

        Args:
            key: of a learned program.
            x: the input sequence.
            states: the initial states, in the program's order.
            params: the tensor parameters, in the program's order.
            save: `run_bwd` will follow; without it nothing is saved.
            carry: the state goes on after this call; without it nobody looks at the final states, and there are none
                (an empty list, and None as their gradients).

        Returns:
            `(out, final states, recorded sequences [T, B, ...], saved)`; `saved` is the backend's own choice of what
            `run_bwd` will need besides the inputs, each `[T, B, ...]` (so that vmap can cut it), and empty without
            `save`.
        """

    def run_bwd(
        self,
        key: str,
        saved: Sequence[Tensor],
        x: Tensor,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
        grad_out: Tensor | None,
        grad_states: Sequence[Tensor | None],
        grad_recorded: Sequence[Tensor | None],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The vector-Jacobian product: `(grad_x, grad of the initial states, grad of the params)`.

        A gradient that is None does not arrive, and its terms are left out (see `dynamics.with_gaps`): it is not zero,
        which times infinity is not a number. What nothing reaches gets zeros.
        """
