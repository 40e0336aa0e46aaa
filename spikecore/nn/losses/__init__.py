"""Losses for classification over time: the output of a net and labels → one number.

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

CE(z, y) = -ln softmax(z)[y]; MSE(z, z') = mean over the C classes of (z - z')². Both are per sample (and per place,
where axes follow C), and then reduced. Half precision is computed in float32. `similarity` compares spike trains with
each other instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

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
from spikecore.nn.readouts import READOUTS

__all__ = [
    "LOSSES",
    "TET",
    "CountCrossEntropy",
    "CountMSE",
    "FirstSpikeCrossEntropy",
    "FirstSpikeMSE",
    "Loss",
    "LossName",
    "MembraneCrossEntropy",
    "MembraneMSE",
    "RateCrossEntropy",
    "RateMSE",
    "ReadoutName",
    "SpikeSimilarityLoss",
    "VanRossumLoss",
    "exponential_trace",
    "readout_of",
    "spike_kernel",
    "van_rossum_distance",
]

LossName = Literal[
    "rate_cross_entropy",
    "rate_mse",
    "count_cross_entropy",
    "count_mse",
    "membrane_cross_entropy",
    "membrane_mse",
    "tet",
    "first_spike_cross_entropy",
    "first_spike_mse",
]
ReadoutName = Literal["auto", "rate", "count", "last", "max", "max_abs", "first_spike"]
"""`auto`: the readout that the loss names."""

LOSSES: dict[str, type[Loss]] = {
    "rate_cross_entropy": RateCrossEntropy,
    "rate_mse": RateMSE,
    "count_cross_entropy": CountCrossEntropy,
    "count_mse": CountMSE,
    "membrane_cross_entropy": MembraneCrossEntropy,
    "membrane_mse": MembraneMSE,
    "tet": TET,
    "first_spike_cross_entropy": FirstSpikeCrossEntropy,
    "first_spike_mse": FirstSpikeMSE,
}
"""Name in a configuration → loss."""


def readout_of(loss: Loss, name: str = "auto") -> Callable[[Tensor], Tensor]:
    """The readout called `name`; with `auto`, the one that suits `loss`."""
    return READOUTS[loss.readout if name == "auto" else name]
