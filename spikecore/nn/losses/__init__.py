"""Losses over time: the output of a net and labels → one number; here of classes, in `values` of other targets.

out [T, B, C, ...]   spikes or membrane potentials; y [B, ...] labels, or [B, C, ...] probabilities of the classes

rate_cross_entropy         CE(r, y)                    r = 1/T Σ_t out[t]
rate_mse                   MSE(r, y')                  y' = on for the class y, off for the others
count_cross_entropy        CE(n, y)                    n = Σ_t out[t]
count_mse                  MSE(n, T y')
membrane_cross_entropy     CE(m, y)                    m = max, mean or last over t of out[t]; or 1/T Σ_t CE(out[t], y)
membrane_mse               MSE(m, y')                  likewise
tet                        (1 - λ)/T Σ_t CE(out[t], y) + λ/T Σ_t MSE(out[t], level)
first_spike_cross_entropy  CE(-t1 / scale, y)          t1: steps before the first spike
first_spike_mse            MSE(t1 / T, y')             here y' holds moments, as parts of T

A class is named as its loss is in a configuration, in capitals: `RateCrossEntropy`, `TET`. Plugins add losses, as
`spikecore.choices` named `loss.NAME`.

CE(z, y) = -ln softmax(z)[y]; MSE(z, z') = mean over the C classes of (z - z')². Both are per sample (and per place,
where axes follow C), and then reduced. Half precision is computed in float32. `similarity` compares spike trains with
each other instead.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from spikecore.interfaces.component import OneOf
from spikecore.nn.losses.base import Loss
from spikecore.nn.losses.membranes import TET, MembraneCrossEntropy, MembraneMSE
from spikecore.nn.losses.rates import CountCrossEntropy, CountMSE, RateCrossEntropy, RateMSE
from spikecore.nn.losses.similarity import (
    SpikeSimilarityLoss,
    VanRossumLoss,
    exponential_trace,
    spike_kernel,
    van_rossum_distance,
)
from spikecore.nn.losses.timing import FirstSpikeCrossEntropy, FirstSpikeMSE
from spikecore.nn.losses.values import SequenceCrossEntropy, SequenceMSE, ValueMSE
from spikecore.registry import load

__all__ = [
    "LOSS",
    "READOUT",
    "SEQUENCE_LOSS",
    "TET",
    "VALUE_LOSS",
    "CountCrossEntropy",
    "CountMSE",
    "FirstSpikeCrossEntropy",
    "FirstSpikeMSE",
    "Loss",
    "MembraneCrossEntropy",
    "MembraneMSE",
    "RateCrossEntropy",
    "RateMSE",
    "SequenceCrossEntropy",
    "SequenceMSE",
    "SpikeSimilarityLoss",
    "ValueMSE",
    "VanRossumLoss",
    "exponential_trace",
    "readout_of",
    "spike_kernel",
    "van_rossum_distance",
]

LOSS = OneOf("loss", Loss, fixed=("reduction",))
"""For a trainer's option `loss`: `Annotated[Any, LOSS]`. The trainer takes `loss.each` and reduces it itself."""
VALUE_LOSS = OneOf("value_loss", Loss, fixed=("reduction",))
"""Likewise, of a trainer whose targets are values."""
SEQUENCE_LOSS = OneOf("sequence_loss", Loss, fixed=("reduction",))
"""Likewise, of a trainer whose targets are sequences."""
READOUT = OneOf("readout", Callable, words=("auto",))
"""For a trainer's option `readout`, a function of the output; `auto` is the one that suits the loss."""


def readout_of(loss: Loss, readout: str | Callable[[Tensor], Tensor] = "auto") -> Callable[[Tensor], Tensor]:
    """The readout of this name, or `readout` itself; with `auto`, the one that suits `loss`."""
    if not isinstance(readout, str):
        return readout
    named: Callable[[Tensor], Tensor] = load("readout", loss.readout if readout == "auto" else readout)
    return named


def __dir__() -> list[str]:
    return __all__
