"""Folding time: a stateless module sees `[T * B, ...]` instead of `[T, B, ...]`.

    multi step:    x [T, B, ...] → flatten → module → unflatten → [T, B, ...]
    single step:   x [B, ...]    → module  → [B, ...]

A module without state treats all steps alike, so one call over `T * B` samples equals T calls over B samples (except
for statistics over the batch: batch norm in training mode sees all T * B samples at once). `fold` is the mechanism;
`FoldsTime` adds it to a torch layer by inheritance, `fold_time` to any module by wrapping.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.nn.layers.once import run_once
from spikecore.nn.state import Stateful, check_step_mode


def fold(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    module: nn.Module | None = None,
) -> Any:
    """Call `function` with axes 0 and 1 of every tensor argument folded; unfold every tensor it returns, alone or in
    tuples, lists and dictionaries.

    Views wherever strides allow it; channels-last steps stay channels-last.

    Args:
        function: takes tensors `[B, ...]`.
        args: of it, with T in front.
        kwargs: the same.
        name: for messages.
        module: whose forward `function` is: it may be called for one step alone, where all are the same; see `once`.

    Raises:
        ShapeError: tensor arguments differ in T or B, or a result does not keep the batch as its first axis.
    """
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    # Sizes are compared, never hashed: a hash makes torch.compile compile again for every T and every B.
    alike = [tensor.dim() >= 2 and tensor.shape[:2] == tensors[0].shape[:2] for tensor in tensors]
    if not tensors or not all(alike):
        got = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "no tensor"
        raise ShapeError(f"{name} in step_mode 'multi' takes tensors [T, B, ...] of equal T and B, got {got}")
    if module is not None and len(args) == 1 and not kwargs:
        out = run_once(function, module, args[0])
        if out is not None:
            return out
    num_steps, batch = tensors[0].shape[:2]
    folded_args = [_fold_time_axis(value) for value in args]
    folded_kwargs = {key: _fold_time_axis(value) for key, value in kwargs.items()}
    return _unfold_time_axis(function(*folded_args, **folded_kwargs), num_steps, batch, name)


def _fold_time_axis(value: Any) -> Any:
    """A tensor `[T, B, ...]` as `[T * B, ...]`; anything else unchanged."""
    if not isinstance(value, Tensor):
        return value
    if value.dim() > 3 and value.stride(2) == 1 and value.stride(-1) != 1:
        # Channels-last: flatten with the channels at the end, so that a copy, if one is needed, keeps the format.
        return value.movedim(2, -1).flatten(0, 1).movedim(-1, 1)
    return value.flatten(0, 1)


def _unfold_time_axis(result: Any, num_steps: int, batch: int, name: str) -> Any:
    """Every tensor `[T * B, ...]` in a result as `[T, B, ...]`; containers keep their type."""
    if isinstance(result, tuple | list):
        values = [_unfold_time_axis(value, num_steps, batch, name) for value in result]
        is_named_tuple = hasattr(result, "_fields")
        return type(result)(*values) if is_named_tuple else type(result)(values)
    if isinstance(result, dict):
        unfolded = copy.copy(result)
        for key, value in result.items():
            unfolded[key] = _unfold_time_axis(value, num_steps, batch, name)
        return unfolded
    if not isinstance(result, Tensor):
        return result
    if not result.dim() or result.shape[0] != num_steps * batch:
        raise ShapeError(
            f"{name} was given {num_steps} * {batch} samples and returned {tuple(result.shape)}: "
            "a module that folds time must keep the batch as its first axis"
        )
    return result.reshape(num_steps, batch, *result.shape[1:])


class FoldsTime:
    """Mixin that folds time; it precedes a torch layer: `class Conv2d(FoldsTime, nn.Conv2d)`.

    The layer keeps its arguments, `state_dict` keys and `isinstance` relations. `ranks` are the ranks of a single-step
    input `[B, ...]` that the layer accepts; None accepts any.
    """

    ranks: ClassVar[tuple[int, ...] | range | None] = None
    step_mode: str

    def __init__(self, *args: Any, step_mode: str = "multi", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_step_mode(step_mode)
        self.step_mode = step_mode

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__ and issubclass(cls, nn.Module):
            cls.__signature__ = _signature(cls)  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"step_mode": "multi", **state})  # type: ignore[misc]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """`[T, B, ...]` or `[B, ...]` by `step_mode`; otherwise as the torch layer.

        Raises:
            ShapeError: the input's rank does not suit the step mode.
        """
        if args and isinstance(args[0], Tensor):
            self._check_rank(args[0])
        if self.step_mode == "single":
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        module = cast(nn.Module, self)
        return fold(super().forward, args, kwargs, type(self).__name__, module)  # type: ignore[misc]

    def _check_rank(self, x: Tensor) -> None:
        is_multi = self.step_mode == "multi"
        rank = x.dim() - is_multi
        if self.ranks is None or rank in self.ranks:
            return
        lead = "[T, B, ...]" if is_multi else "[B, ...]"
        ranks = sorted(allowed + is_multi for allowed in self.ranks)
        wanted = " or ".join(map(str, ranks)) if isinstance(self.ranks, tuple) else f"at least {ranks[0]}"
        raise ShapeError(
            f"{type(self).__name__} in step_mode {self.step_mode!r} takes {lead} with {wanted} axes, "
            f"got {tuple(x.shape)}: {_cure(rank, self.ranks, self.step_mode)}"
        )

    def extra_repr(self) -> str:
        own = super().extra_repr()  # type: ignore[misc]
        mode = "" if self.step_mode == "multi" else f"step_mode={self.step_mode!r}"
        return ", ".join(part for part in (own, mode) if part)


def _cure(rank: int, ranks: tuple[int, ...] | range, step_mode: str) -> str:
    if step_mode == "multi" and rank + 1 in ranks:
        return "set_step_mode(net, 'single') for one step, or x.unsqueeze(0) for a sequence of one"
    if step_mode == "single" and rank - 1 in ranks:
        return "set_step_mode(net, 'multi') for a sequence"
    return "check the layer's number of dimensions"


def _signature(cls: type) -> inspect.Signature:
    """The torch layer's arguments, then the keywords that the mixins before it add; for help() and editors."""
    keywords: list[inspect.Parameter] = []
    for base in cls.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = list(inspect.signature(base).parameters.values())
        if not any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
            return inspect.Signature([*parameters, *keywords])
        keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY] + keywords
    raise TypeError(f"{cls.__name__}: FoldsTime must come before a torch layer")


class FoldTime(FoldsTime, nn.Module):
    """What `fold_time` returns; `module` is the wrapped module, so `state_dict` keys begin with `module.`."""

    def __init__(self, module: nn.Module, step_mode: str = "multi") -> None:
        super().__init__(step_mode=step_mode)
        _refuse_state(module)
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module, with `[T, B, ...]` in multi-step mode."""
        if self.step_mode == "single":
            return self.module(*args, **kwargs)
        return fold(self.module, args, kwargs, f"fold_time({type(self.module).__name__})", self.module)


def fold_time(module: nn.Module, step_mode: str = "multi") -> FoldTime:
    """Make any stateless module take `[T, B, ...]` in multi-step mode and `[B, ...]` in single-step mode.

    Args:
        module: takes one or more tensors `[B, ...]` and keeps B as the first axis of what it returns.
        step_mode: `multi` or `single`; `set_step_mode` changes it.

    Raises:
        StateError: the module, or a part of it, keeps state from step to step.
        OptionError: a part of it folds time already.

    Example:
        >>> import torch
        >>> fold_time(nn.Conv2d(1, 2, 3))(torch.zeros(4, 5, 1, 8, 8)).shape
        torch.Size([4, 5, 2, 6, 6])
    """
    return FoldTime(module, step_mode)


def _refuse_state(module: nn.Module) -> None:
    for name, part in module.named_modules():
        where = f"{type(part).__name__}" + (f" at {name!r}" if name else "")
        if isinstance(part, Stateful):
            raise StateError(
                f"fold_time takes modules without state; {where} keeps state from step to step and would mix the "
                "steps of different samples: wrap the stateless parts around it, one by one"
            )
        if hasattr(part, "step_mode"):
            raise OptionError(f"fold_time: {where} has a step_mode and folds time already: leave it unwrapped")
