"""A plain torch layer fed a sequence: refused before the call, or torch's complaint named with layer and cure.

`torch.nn.Conv2d` knows nothing of time. Fed `[T, B, C, H, W]` it raises torch's own error; `guarded` looks up which
submodule that was, in the traceback, so that a call that works costs nothing. `torch.nn.Linear` takes any number of
leading axes and is right as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikecore.errors import ShapeError, SpikeError
from spikecore.nn.block import NormedNeuron
from spikecore.nn.layers.fold import FoldsTime
from spikecore.nn.time_axis import EXACT, refuse_confused_axes, where
from spikecore.torch_internals import NormBase


def guarded(net: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`call(*args, **kwargs)`; a torch error caused by a plain layer in multi-step mode becomes a `ShapeError`.

    Raises:
        ShapeError: names the layer, its input and `fold_time(module)`.
    """
    is_traced = any(isinstance(value, fx.Proxy) for value in (*args, *kwargs.values()))
    if not is_traced and not torch.compiler.is_compiling():
        refuse_confused_axes(net)
    try:
        return call(*args, **kwargs)
    except (RuntimeError, ValueError) as error:
        if torch.compiler.is_compiling() or isinstance(error, SpikeError | torch.OutOfMemoryError):
            raise
        message = explain(net, error)
        if message is None:
            raise
        raise ShapeError(message) from error


def explain(net: nn.Module, error: BaseException) -> str | None:
    """What to say when a layer of `net` that does not fold time made `error`; None when that is not the cause."""
    if all(getattr(part, "step_mode", "single") == "single" for part in net.modules()):
        return None
    folding: set[int] = set()
    for module in net.modules():
        if isinstance(module, FoldsTime | NormedNeuron):
            folding.update(id(part) for part in module.modules())
    plain = {id(part): where(part, name) for name, part in net.named_modules() if id(part) not in folding}
    calls = [(part, x) for part, x in _calls(error) if type(part).__module__.startswith("torch.nn")]
    if not calls or id(calls[-1][0]) not in plain:
        return None
    part, x = calls[-1]
    got = f"{plain[id(part)]} was given {tuple(x.shape)}"
    rank = next((rank for rank, kinds in EXACT.items() if isinstance(part, kinds)), None)
    if rank is not None and x.dim() == rank + 1:
        return (
            f"{got}; it takes a batch [B, ...] of {rank} axes, and this looks like a sequence [T, B, ...]: "
            f"wrap it in fold_time(module), or use spikecore.nn.{type(part).__name__}"
        )
    suspects = [plain[id(layer)] for layer in net.modules() if id(layer) in plain and _counts_from_batch(layer)]
    if suspects:
        return (
            f"{got}: {error}. In multi-step mode {', '.join(suspects)} takes axis 1 of a sequence [T, B, ...] for the "
            "channels: wrap it in fold_time(module)"
        )
    return None


def _counts_from_batch(layer: nn.Module) -> bool:
    """Whether a sequence passes through it and comes out wrong."""
    if isinstance(layer, nn.Flatten):
        return layer.start_dim >= 0
    return isinstance(layer, NormBase | nn.GroupNorm | nn.Upsample)


def _calls(error: BaseException) -> Iterator[tuple[nn.Module, Tensor]]:
    """Modules whose `forward` the error passed through, outermost first, with their first tensor argument."""
    trace = error.__traceback__
    while trace is not None:
        frame: FrameType = trace.tb_frame
        code, values = frame.f_code, frame.f_locals
        module = values.get("self")
        if code.co_name == "forward" and isinstance(module, nn.Module):
            arguments = (values.get(name) for name in code.co_varnames[1 : code.co_argcount])
            x = next((value for value in arguments if isinstance(value, Tensor)), None)
            if x is not None:
                yield module, x
        trace = trace.tb_next
