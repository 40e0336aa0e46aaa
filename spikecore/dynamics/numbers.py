"""The operators on Python numbers, as IEEE 754 defines them: infinities and NaN instead of exceptions.

A step computes with Python numbers where only constants occur (`params.alpha / 2`). The result must be the same in
eager and traced use, and constant folding must give what a device would have computed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

NAN = math.nan


def single(a: float) -> float:
    """`a` rounded to float32."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", a))[0]
    except OverflowError:
        return math.copysign(math.inf, a)
    return rounded


def same(a: float, b: float) -> bool:
    """Are the bits equal, apart from the payload of NaN? 0.0 and -0.0 differ, NaN equals NaN."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b and math.copysign(1, a) == math.copysign(1, b)


def div(a: float, b: float) -> float:
    """a / b."""
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):  # b is 0 here: NaN != 0 has returned above
        return NAN
    return math.copysign(math.inf, a) * math.copysign(1, b)


def exp(a: float) -> float:
    """e to the power a."""
    try:
        return math.exp(a)
    except OverflowError:
        return math.inf


def log(a: float) -> float:
    """The natural logarithm; log 0 is -inf."""
    if a == 0:
        return -math.inf
    return math.log(a) if a > 0 else NAN


def sqrt(a: float) -> float:
    """The square root."""
    return math.sqrt(a) if a >= 0 else NAN


def sigmoid(a: float) -> float:
    """1 / (1 + exp(-a))."""
    return 1 / (1 + exp(-a))


def sign(a: float) -> float:
    """-1, 0 or 1; 0 for NaN."""
    return float((a > 0) - (a < 0))


def minimum(a: float, b: float) -> float:
    """The smaller one; NaN if one of them is."""
    return NAN if math.isnan(a) or math.isnan(b) else min(a, b)


def maximum(a: float, b: float) -> float:
    """The larger one; NaN if one of them is."""
    return NAN if math.isnan(a) or math.isnan(b) else max(a, b)


def clamp(a: float, low: float, high: float) -> float:
    """`a` limited to [low, high]."""
    return minimum(maximum(a, low), high)


def floor(a: float) -> float:
    """The largest integer not above a."""
    return math.copysign(math.floor(a), a) if math.isfinite(a) else a


def round_half_even(a: float) -> float:
    """The nearest integer, halves to even."""
    return math.copysign(round(a), a) if math.isfinite(a) else a


def finite_only(function: Callable[[float], float]) -> Callable[[float], float]:
    """`function` with NaN at infinities, where Python's sine and cosine raise."""

    def call(a: float) -> float:
        return NAN if math.isinf(a) else function(a)

    return call
