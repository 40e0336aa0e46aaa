"""The surrogates of core, one per file."""

from spikecore.nn.surrogates.atan import ATan
from spikecore.nn.surrogates.base import Steepness, Surrogate
from spikecore.nn.surrogates.erf import Erf
from spikecore.nn.surrogates.piecewise_exponential import PiecewiseExp
from spikecore.nn.surrogates.piecewise_quadratic import PiecewiseQuadratic
from spikecore.nn.surrogates.rectangular import Rect
from spikecore.nn.surrogates.sigmoid import Sigmoid
from spikecore.nn.surrogates.soft_sign import SoftSign
from spikecore.nn.surrogates.superspike import SuperSpike

__all__ = [
    "ATan",
    "Erf",
    "PiecewiseExp",
    "PiecewiseQuadratic",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "Steepness",
    "SuperSpike",
    "Surrogate",
]
