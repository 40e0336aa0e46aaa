"""LIF with batch norm of the membrane potential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikecore.dynamics import Namespace
from spikecore.errors import OptionError
from spikecore.interfaces import Inner, Range
from spikecore.nn import (
    LIF,
    ATan,
    Surrogate,
    TorchNeuron,
    filled_like,
    leaky_charge,
    reset_after,
    stack_steps,
    unbind_steps,
    widened,
)
from spikecore_neuron_zoo.options import options_of


class MPBNLIF(TorchNeuron):
    """LIF whose potential is batch-normalised before it fires.

    h = LIF charge of (v, x)
    n = weight (h - mean) / sqrt(var + eps) + bias       per channel, over batch and space of this step
    s = Θ(n - v_threshold)
    hard: v = (1 - s) m + s v_reset;  soft: v = m - s v_threshold;  m = n, or h with residual="raw"

    `tau` in steps; channels along axis 1 of a step `[B, C, ...]`. In training mean and var are the batch's, and running
    ones are kept, one update per step; in eval they are the running ones. `v` starts at `v_reset`; fires when
    n >= v_threshold; reset in the same step.

    Not elementwise: in training an output depends on the whole batch. In eval with residual="raw" the norm is no more
    than another threshold per channel: `folded()` gives that as a LIF, which every backend fuses.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, C, ...]` and dtype.

    Raises:
        ShapeError: axis 1 of a step does not have `num_features`.

    Gradients: to x, weight, bias, the threshold if it is trained, and the initial state; through the batch statistics;
    through the spike by the surrogate.

    Source: Guo et al., Membrane potential batch normalization for spiking neural networks (ICCV 2023).

    Parity: spikingjelly's MPBNLIFNode with residual="normalized"; tests/peers/test_zoo.py. Its decay of the momentum
    belongs to a training loop and is not here.

    Example:
        >>> import torch
        >>> neuron = MPBNLIF(num_features=1).eval()
        >>> neuron(torch.tensor([[[0.6]], [[0.8]], [[0.0]]])).flatten().tolist()
        [0.0, 1.0, 0.0]
    """

    why_torch = "the batch norm of the potential looks at the whole batch"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Args:
            num_features: C.
            tau: membrane time constant, in steps.
            decay_input: the input is leaked as well.
            v_threshold: fires when the normalised potential reaches it.
            learn_threshold: the threshold is trained, one per channel.
            v_reset: initial `v`, target of the hard reset and of the leak.
            reset: `hard` or `soft`.
            detach_reset: no gradient through `s` in the reset.
            residual: which potential goes on to the next step.
            momentum: share of the new batch in the running statistics.
            eps: added to the variance.
            surrogate: the derivative of the spike.
        """

        num_features: Annotated[int, Range(ge=1)]
        tau: Annotated[float, Range(gt=1.0)] = 2.0
        decay_input: bool = False
        v_threshold: float = 1.0
        learn_threshold: bool = False
        v_reset: float = 0.0
        reset: Literal["hard", "soft"] = "hard"
        detach_reset: bool = False
        residual: Literal["normalized", "raw"] = "normalized"
        momentum: Annotated[float, Range(ge=0.0, le=1.0)] = 0.1
        eps: Annotated[float, Range(gt=0.0)] = 1e-5
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        size = self.config.num_features
        threshold = torch.full((size,), self.config.v_threshold)
        self.v_threshold = nn.Parameter(threshold) if self.config.learn_threshold else None
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`v` = v_reset."""
        self.check_channels(x, self.config.num_features)
        return {"v": filled_like(x, self.config.v_reset, widened(x).dtype)}

    def run(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TorchNeuron.run`."""
        params = Namespace(
            **{**vars(self.config), "v_threshold": self._threshold(x), "v_leak": self.config.v_reset},
        )
        v, outs = state["v"], []
        for current in unbind_steps(x):
            h = leaky_charge(v, current, params)
            normal = self._norm(h)
            s = self.config.surrogate(normal - params.v_threshold)
            v = reset_after(s, normal if self.config.residual == "normalized" else h, params)
            outs.append(s)
        return stack_steps(outs) if outs else torch.empty_like(x), {"v": v}

    def _threshold(self, x: Tensor) -> Any:
        if self.v_threshold is None:
            return self.config.v_threshold
        return self.v_threshold.to(x.dtype).reshape(-1, *([1] * (x.dim() - 3)))

    def _norm(self, h: Tensor) -> Tensor:
        weight, bias = self.weight.to(h.dtype), self.bias.to(h.dtype)
        mean, var = self.running_mean, self.running_var
        if h.dtype != mean.dtype:  # torch updates statistics of the input's dtype only
            mean, var = mean.to(h.dtype), var.to(h.dtype)
        options = {"momentum": self.config.momentum, "eps": self.config.eps}
        normal = functional.batch_norm(h, mean, var, weight, bias, training=self.training, **options)
        if self.training and mean is not self.running_mean:
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
        return normal

    def folded(self) -> LIF:
        """The same neuron in eval as a plain LIF with one threshold per channel.

        n >= v_threshold  ⇔  h >= (v_threshold - bias) sqrt(running_var + eps) / weight + running_mean

        Raises:
            OptionError: the residual is normalised, the reset is soft, or a weight is not above 0: no LIF equals it.
        """
        config = self.config
        if config.residual != "raw" or config.reset != "hard" or not bool((self.weight > 0).all()):
            raise OptionError(
                "MPBNLIF folds into a LIF with residual='raw', reset='hard' and weights above 0 only; "
                f"here residual={config.residual!r}, reset={config.reset!r}, smallest weight {self.weight.min():.3g}"
            )
        deviation = (self.running_var + config.eps).sqrt()
        threshold = config.v_threshold if self.v_threshold is None else self.v_threshold
        folded = (threshold - self.bias) * deviation / self.weight + self.running_mean
        options = {**options_of(LIF, config), "v_threshold": folded.detach()}
        return LIF(step_mode=self.step_mode, backend=self.backend, **options)
