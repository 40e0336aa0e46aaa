"""What a reader computes from a node: NIR gives equations in continuous time, every reader has its own steps.

    dv/dt = (v_leak - v + r x) / tau                              the file
    h = v + (v_leak - v + r x) / n                                a step; n is the time constant in steps

| profile | n | input | reset | spikes |
|---|---|---|---|---|
| `euler` | tau / dt | divided by n | to v_reset | in the same step |
| `held` | 1 / (1 - exp(-dt / tau)): exact for held input | divided by n | to v_reset | in the same step |
| `decay_soft` | 1 / (1 - exp(-dt / tau)) | as it is: r x | subtracts v_threshold | in the same step |
| `late` | tau / dt | divided by n | to v_reset | reach the next node one step later |

norse, snntorch (`zero`) and spyx compute `euler`, rockpool and sinabs `decay_soft`, lava `late`. All of them fire when
v > v_threshold, start at v_leak (IF at 0) and reset in the step of the spike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

DEFAULT_DT_S = 2.0**-10
"""A power of two: tau in seconds is then a whole number of steps exactly."""


@dataclass(frozen=True)
class Profile:
    """One way to compute a file.

    Args:
        name: in options and in the file.
        is_exact: decays are exp(-dt / tau), otherwise 1 - dt / tau.
        scales_input: the input is divided by the time constant in steps.
        reset: `hard` or `soft`.
        lag: steps until a spike arrives at the next node.
    """

    name: str
    is_exact: bool = False
    scales_input: bool = True
    reset: str = "hard"
    lag: int = 0

    def steps(self, tau_s: Doubles, dt_s: float) -> Doubles:
        """The time constant n in steps, from seconds."""
        if not self.is_exact:
            return tau_s / dt_s
        with np.errstate(over="ignore", divide="ignore"):
            return -1.0 / np.expm1(-dt_s / tau_s)

    def seconds(self, steps: float, dt_s: float) -> float:
        """The time constant in seconds that gives `steps`; 0 where no time constant does."""
        if not self.is_exact:
            return steps * dt_s
        return 0.0 if steps <= 1.0 else -dt_s / math.log1p(-1.0 / steps)

    def gain(self, r: Doubles, steps: Doubles) -> Doubles:
        """What the input of a step is multiplied by."""
        return r / steps if self.scales_input else r

    def resistance(self, steps: float) -> float:
        """The r that leaves the input as it is."""
        return steps if self.scales_input else 1.0

    def integrator_gain(self, r: Doubles, dt_s: float) -> Doubles:
        """The same of I and IF, dv/dt = r x."""
        return r * dt_s if self.scales_input else r

    def integrator_resistance(self, dt_s: float) -> float:
        """The r with which I and IF add the input as it is."""
        return 1.0 / dt_s if self.scales_input else 1.0


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("euler"),
        Profile("held", is_exact=True),
        Profile("decay_soft", is_exact=True, scales_input=False, reset="soft"),
        Profile("late", lag=1),
    )
}

ULPS = 16


def invert(wanted: float, guess: float, forward: Callable[[float], float], dtype: str) -> float | None:
    """A double near `guess` from which `forward` gives `wanted`, both rounded to `dtype`; None where none does.

    Example:
        >>> invert(3.0, 0.3, lambda tau: tau / 0.1, "float32") is not None
        True
    """
    rounded = np.dtype(dtype).type(wanted)
    above = below = guess
    for _ in range(ULPS):
        for candidate in (above, below):
            if np.dtype(dtype).type(forward(candidate)) == rounded:
                return candidate
        above, below = math.nextafter(above, math.inf), math.nextafter(below, -math.inf)
    return None


def next_below(value: float, dtype: str) -> float:
    """The largest number of `dtype` that is smaller than the threshold as `dtype` holds it: h > it is h >= threshold.

    Example:
        >>> next_below(1.0, "float32")
        0.9999999403953552
    """
    kind = np.dtype(dtype).type
    return float(np.nextafter(kind(value), kind(-np.inf)))


def next_above(value: float, dtype: str) -> float:
    """The inverse of `next_below`."""
    kind = np.dtype(dtype).type
    return float(np.nextafter(kind(value), kind(np.inf)))
