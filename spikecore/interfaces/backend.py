"""Backend: runs traced neurons. It knows no neuron by name, but prints or interprets their graphs.

A neuron is traced once into a `dynamics.Program`, found again by `key`, the content hash of its equations. Core wraps
`run` and `run_bwd` as one pair of torch operators, with autograd, vmap, fake tensors and autocast.

    T, N    steps and elements per step (`x` is `[T, B, ...]`; per-channel parameters have size C and follow axis 2)
    state   float32 for half-precision x, else x's dtype; each `[B, ...]`
    out     x's dtype; never aliases an input; all that a backend returns is contiguous

**Memory format.** Channels-last input arrives as rows: `[T, B * H * W, C]`, a contiguous view, and core gives the
results the format of the input. A backend need not know of it.

**Memory.** Inputs have any strides. States and gradients of stride 0 (one number for all lanes, one row for all steps)
are read as that one number or row, never written out. Offsets into tensors are 64-bit.

**Devices.** All work of a call is enqueued on the current stream of x's device, which need not be the current device;
nothing synchronises with the host. So calls can be captured in a CUDA graph.

**Optional methods.** `step`, `stream_copy` and every other method with a body in `Backend` have defaults; a backend
overrides what it does better. Callers need not check: the default answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spikecore.errors import BackendError
from spikecore.interfaces.component import Configurable
from spikecore.interfaces.options import make_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from spikecore.dynamics import Program
    from spikecore.interfaces.products import ProductGeometry, SpikeBits, SpikeProduct


@dataclass(frozen=True)
class BackendCapabilities:
    """What a backend promises.

    Args:
        priority: `backend="auto"` tries higher ones first; the reference has 0.
        devices: torch device types it runs on.
        dtypes: input dtypes it accepts.
        deterministic: equal inputs give bit-identical results, whatever the number of threads.
        affine_neuron: also fuses the scale and shift of `ConvBNNeuron` and `LinearBNNeuron` into the neuron.
        spike_products: kinds of products that `product` takes: `conv2d`, `linear`.
        spike_bits: also packs spikes and multiplies bits, for `optimize`: `pack`, `prepare` and `product_of_bits`.
        norm_neuron: `norm_neuron` and `norm_neuron_grad` run batch norm in training and neuron in one call.
    """

    priority: int = 0
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    deterministic: bool = True
    affine_neuron: bool = False
    spike_products: tuple[str, ...] = ()
    spike_bits: bool = False
    norm_neuron: bool = False


@dataclass(frozen=True)
class Support:
    """Whether a backend can run something, and why not. True when it can."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class NormCall:
    """Batch norm with the statistics of y, then a neuron: what `Backend.norm_neuron` is called with.

        mean, var = those of y over all axes but 2        var: of the population
        x = gamma * (y - mean) / sqrt(var + eps) + beta    the input of the program

    Args:
        key: of the neuron's own learned program: to it the normed sequence is x.
        y: `[T, B, C, ...]`, with more than one value for each channel, any strides. T of stride 0: all steps are the
            same.
        gamma: scale of the norm, `[C]`, in the dtype of the state; None for ones.
        beta: shift of the norm, `[C]`, likewise; None for zeros.
        eps: added to the variance.
        states: the initial states, in the program's order, each `[B, C, ...]`.
        params: the tensor parameters, in the program's order, each `[1]` or `[C]`.
    """

    key: str
    y: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    eps: float
    states: Sequence[Tensor]
    params: Sequence[Tensor]


class Backend(Configurable):
    """Base of backends: `supports`, `run` and `run_bwd` are theirs to write, all else has a default.

    The constructor raises `PluginUnavailable` where the backend cannot work at all.
    """

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities()
    config: Any

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        self._programs: dict[str, Program] = {}

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Can this program run on this device with inputs of this dtype?

        A program may contain operators that are newer than the backend. The backend must refuse unknown operators by
        name, as `backends.kit.check_support` does.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement supports()")

    def learn(self, program: Program) -> None:
        """Make a program callable by its key. Called before `run`. Must be cheap and idempotent."""
        self._programs[program.key] = program

    def program(self, key: str) -> Program:
        """The learned program of this key.

        Raises:
            BackendError: no such program was learned.
        """
        if key not in self._programs:
            raise BackendError(
                f"backend {type(self).__name__} knows no neuron under the key {key!r}; call `learn` first"
            )
        return self._programs[key]

    def saved_like(self, key: str, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """Empty tensors with the shapes and dtypes of what `run` saves; also called with fake tensors.

        Default: nothing is saved.
        """
        return []

    def reads_input(self, key: str, saved: Sequence[Tensor]) -> bool:
        """Does `run_bwd` read x, after a `run` that saved this? Otherwise x is not kept for it: it gets a stand-in of
        the same shape and dtype.

        Default: it does.
        """
        return True

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
            carry: later calls need the final states; without it the final states are not needed, and there are none
                (an empty list, and None as their gradients).

        Returns:
            `(out, final states, recorded sequences [T, B, ...], saved)`; `saved` is the backend's own choice of what
            `run_bwd` will need besides the inputs, and empty without `save`. Its first axis may have any size (one row
            for every step, for every fourth, for each block); axis 1 is the batch, so that vmap can cut it.

        Raises:
            BackendError: an unknown key; states or parameters that do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement run()")

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

        None is a missing gradient, whose terms are left out (see `dynamics.phases` and `dynamics.with_gaps`). It must
        not be replaced by zeros: zero times infinity is NaN. Inputs that no gradient reaches get zeros.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement run_bwd()")

    def step(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """One step without gradient, `x` and `out` `[B, ...]`; otherwise like `run` with T = 1.

        Core calls it in single-step mode where no gradient, compiler or transform is at work. It is for small inputs,
        where the overhead of a call costs more than the step itself.

        Returns:
            `(out, final states)`, or None to fall back to `run`, which is the default.
        """
        return None

    def norm_neuron_pays(self, key: str, y: Tensor) -> bool:
        """Is `norm_neuron` faster than norm and neuron one by one?

        A block in training asks before each call, with `capabilities.norm_neuron` alone. The answer may depend on the
        program and on the shape, memory format and dtype of y, not on values.

        Args:
            key: of a learned program.
            y: `[T, B, C, ...]`, what would be normed.
        """
        return True

    def norm_neuron(
        self, call: NormCall, save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor, list[Tensor]] | None:
        """Norm and neuron in one call; called with `capabilities.norm_neuron` alone.

        Args:
            call: the arguments.
            save: as of `run`; `norm_neuron_grad` will follow.
            carry: as of `run`.

        Returns:
            `(out, final states, recorded sequences, mean [C], var [C], saved)`, mean and var in the dtype of the state
            and the rest as of `run`, but `saved` may have any axes. The caller updates the running statistics. Or None,
            the default: the norm runs by itself, then the neuron.
        """
        return None

    def norm_neuron_grad(
        self,
        call: NormCall,
        saved: Sequence[Tensor],
        grad_out: Tensor | None,
        grad_states: Sequence[Tensor | None],
        grad_recorded: Sequence[Tensor | None],
        wants_states: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor], list[Tensor]]:
        """The vector-Jacobian product of `norm_neuron`: gradients of y (through the statistics as well), gamma, beta,
        the initial states and the params. That of a gamma or beta that is None is None. Without `wants_states` there
        are none of the initial states (an empty list). Otherwise as `run_bwd`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement norm_neuron_grad(), since it has norm_neuron")

    def stream_copy(self, to: Tensor, source: Tensor) -> None:
        """Copy a contiguous tensor as fast as this device can: `spike bench` derives the floor from it.

        Default: `to.copy_(source)`.
        """
        to.copy_(source)

    def product(
        self, geometry: ProductGeometry, x: Tensor, weight: Tensor, bias: Tensor | None, always: bool, save: bool
    ) -> SpikeProduct:
        """A product whose input may be spikes: sums of the weights of those inputs that are 1.

        Each output is within 4 ulp of the sum of the terms' magnitudes, has equal bits however the batch is split and
        whatever the number of threads, and equals the dense product where all sums are exact. A NaN or an infinity in
        a weight reaches only outputs whose input at that weight is 1.

        Args:
            geometry: kind, stride, padding.
            x: `[N, C, H, W]` or `[..., C]`, any strides; the backend must check that all values are 0 or 1.
            weight: the weight.
            bias: one value per output, or None.
            always: run by events at any rate; otherwise where it is expected to be faster.
            save: `product_grad` will follow.

        Returns:
            The result, or `y=None` with the reason: this call runs densely. Nothing that the backend cannot do is an
            error.
        """
        raise NotImplementedError(f"{type(self).__name__} declares spike_products and must implement product()")

    def product_grad(
        self, geometry: ProductGeometry, kept: Sequence[Tensor], x_shape: Sequence[int], grad: Tensor, weight: Tensor
    ) -> Tensor:
        """The gradient of the weight of a product that `product` ran with `save`.

        Args:
            geometry: as it was.
            kept: what `product` returned.
            x_shape: the shape of its input.
            grad: of its output, any strides.
            weight: only looked at: shape and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} declares spike_products and must implement product_grad()")

    def pack(self, x: Tensor) -> SpikeBits | None:
        """The bits of x `[N, C, H, W]` or `[N, C]`; None where it is not spikes, or not float32."""
        raise NotImplementedError(f"{type(self).__name__} declares spike_bits and must implement pack()")

    def prepare(self, geometry: ProductGeometry, weight: Tensor) -> Tensor | None:
        """The weight as `product_of_bits` reads it, a copy; None where there is no kernel for it."""
        raise NotImplementedError(f"{type(self).__name__} declares spike_bits and must implement prepare()")

    def product_of_bits(
        self, geometry: ProductGeometry, bits: SpikeBits, weight: Tensor, bias: Tensor | None, prepared: Tensor,
        always: bool,
    ) -> SpikeProduct:  # fmt: skip
        """The same numbers as `product` gives for these spikes, without a gradient.

        Args:
            geometry, weight, bias, always: as of `product`; of the weight, only shape and dtype.
            bits: the spikes.
            prepared: what `prepare` made of the weight.

        Returns:
            y `[N, O, H, W]` in channels last, or `[N, O]`; None where such a rate is faster densely.
        """
        raise NotImplementedError(f"{type(self).__name__} declares spike_bits and must implement product_of_bits()")
