"""Comparing tensors, with one table of tolerances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-9, 1e-10),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (2e-2, 2e-2),
}
"""dtype → (relative, absolute): a sum over a few hundred values in another order stays far below."""


def assert_close(got: Any, right: Any, what: str) -> None:
    """Equal within the dtype's tolerance; shape, dtype and device agree; NaN equals NaN. Nested lists and dicts too."""
    for place, value, wanted in _pairs(got, right, what):
        rtol, atol = TOLERANCES.get(wanted.dtype, (0.0, 0.0))
        _compare(value, wanted, rtol, atol, place)


def assert_same(got: Any, right: Any, what: str) -> None:
    """Equal in every bit (NaN equals NaN); shape, dtype and device agree."""
    for place, value, wanted in _pairs(got, right, what):
        _compare(value, wanted, 0.0, 0.0, place)


def _compare(got: Tensor, right: Tensor, rtol: float, atol: float, what: str) -> None:
    torch.testing.assert_close(
        got, right, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{what} is not what it should be: {text}"
    )


def _pairs(got: Any, right: Any, what: str) -> list[tuple[str, Tensor, Tensor]]:
    if isinstance(right, Tensor):
        assert isinstance(got, Tensor), f"{what}: expected a tensor, got {type(got).__name__}"
        return [(what, got, right)]
    if isinstance(right, Mapping):
        assert isinstance(got, Mapping), f"{what}: expected a mapping, got {type(got).__name__}"
        assert list(got) == list(right), f"{what}: expected {list(right)}, got {list(got)}"
        pairs = []
        for key in right:
            pairs += _pairs(got[key], right[key], f"{what} [{key!r}]")
        return pairs
    if isinstance(right, Sequence) and not isinstance(right, str):
        assert len(got) == len(right), f"{what}: expected {len(right)} parts, got {len(got)}"
        pairs = []
        for index, (value, wanted) in enumerate(zip(got, right, strict=True)):
            pairs += _pairs(value, wanted, f"{what} [{index}]")
        return pairs
    assert got == right, f"{what}: expected {right!r}, got {got!r}"
    return []
