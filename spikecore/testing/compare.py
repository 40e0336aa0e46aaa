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


def assert_close(found: Any, right: Any, what: str) -> None:
    """Equal within the dtype's tolerance; shape, dtype and device agree; NaN equals NaN. Nested lists and dicts too."""
    for place, ours, theirs in _pairs(found, right, what):
        rtol, atol = TOLERANCES.get(theirs.dtype, (0.0, 0.0))
        _compare(ours, theirs, rtol, atol, place)


def assert_same(found: Any, right: Any, what: str) -> None:
    """Equal in every bit (NaN equals NaN); shape, dtype and device agree."""
    for place, ours, theirs in _pairs(found, right, what):
        _compare(ours, theirs, 0.0, 0.0, place)


def _compare(found: Tensor, right: Tensor, rtol: float, atol: float, what: str) -> None:
    torch.testing.assert_close(
        found, right, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{what} is not what it should be: {text}"
    )


def _pairs(found: Any, right: Any, what: str) -> list[tuple[str, Tensor, Tensor]]:
    if isinstance(right, Tensor):
        assert isinstance(found, Tensor), f"{what}: expected a tensor, got {type(found).__name__}"
        return [(what, found, right)]
    if isinstance(right, Mapping):
        assert isinstance(found, Mapping), f"{what}: expected a mapping, got {type(found).__name__}"
        assert list(found) == list(right), f"{what}: expected {list(right)}, got {list(found)}"
        pairs = []
        for key in right:
            pairs += _pairs(found[key], right[key], f"{what} [{key!r}]")
        return pairs
    if isinstance(right, Sequence) and not isinstance(right, str):
        assert len(found) == len(right), f"{what}: expected {len(right)} parts, got {len(found)}"
        pairs = []
        for index, (ours, theirs) in enumerate(zip(found, right, strict=True)):
            pairs += _pairs(ours, theirs, f"{what} [{index}]")
        return pairs
    assert found == right, f"{what}: expected {right!r}, got {found!r}"
    return []
