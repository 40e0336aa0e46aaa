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
from torch import Tensor, nn

from spikecore.errors import ShapeError, SpikeError
from spikecore.nn.block import NormedNeuron
from spikecore.nn.layers.fold import FoldsTime
from spikecore.torch_internals import NormBase

_EXACT: dict[int, tuple[type[nn.Module], ...]] = {
    3: (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    4: (
        *(nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
        nn.BatchNorm2d,
    ),
    5: (
        *(nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
        nn.BatchNorm3d,
    ),
}
"""Rank of a batch → layers that take just this rank (torch also takes one sample without the batch axis)."""


_SILENT = (
    *(kind for kinds in _EXACT.values() for kind in kinds),
    *(NormBase, nn.GroupNorm, nn.LocalResponseNorm, nn.Upsample, nn.ChannelShuffle, nn.PixelShuffle, nn.PixelUnshuffle),
    *(nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d, nn.LPPool1d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout),
)
"""Layers that count axes from the batch."""
_RESHAPING = (nn.Flatten, nn.Unflatten)
"""Layers that may fold time, or unfold it, on purpose."""
CHECKED = "_checked_chains"
"""Attribute of a net whose chains were looked at."""


def guarded(net: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`call(*args, **kwargs)`; a torch error caused by a plain layer in multi-step mode becomes a `ShapeError`.

    Raises:
        ShapeError: names the layer, its input and `fold_time(module)`.
    """
    if not torch.compiler.is_compiling():
        refuse_silent_layers(net)
    try:
        return call(*args, **kwargs)
    except (RuntimeError, ValueError) as error:
        if torch.compiler.is_compiling() or isinstance(error, SpikeError | torch.OutOfMemoryError):
            raise
        message = explain(net, error)
        if message is None:
            raise
        raise ShapeError(message) from error


def refuse_silent_layers(net: nn.Module) -> None:
    """Refuse chains in which a layer would take time for the batch or the batch for the channels, without an error.

    Looked at once for each net, and again when its step mode or the number of its children changes. Only chains
    (`Sequential`) that hold a neuron are looked at, since a `forward` of one's own may fold time by itself; a chain
    with an unknown module passes.

    Raises:
        ShapeError: names the layers, and what to do.
    """
    checked = vars(net).get(CHECKED)
    if checked is not None and checked == _form(net, checked[0]):
        return
    neurons = [part for part in net.modules() if hasattr(part, "step_mode")]
    if not neurons:
        return
    for path, part in net.named_modules():
        if isinstance(part, nn.Sequential):
            _check_chain(type(net).__name__, path, part)
    vars(net)[CHECKED] = _form(net, neurons[0])


def _form(net: nn.Module, neuron: nn.Module) -> tuple[nn.Module, object, int]:
    return neuron, getattr(neuron, "step_mode", None), len(net._modules)


def _check_chain(net: str, path: str, chain: nn.Sequential) -> None:
    modes: dict[object, str] = {}
    plain: list[str] = []
    for name, part in chain.named_children():
        place = _where(part, f"{path}.{name}".lstrip("."))
        if hasattr(part, "step_mode"):
            modes.setdefault(part.step_mode, place)
        elif isinstance(part, FoldsTime | NormedNeuron | nn.Sequential):
            pass
        elif _takes_no_sequence(part):
            plain.append(place)
        elif not type(part).__module__.startswith(("torch.nn.", "spikecore.")) or isinstance(part, _RESHAPING):
            return  # it may fold or remove the time axis
    if len(modes) > 1:
        raise ShapeError(
            f"{net} mixes step modes: {modes['multi']} is in 'multi' and takes [T, B, ...], {modes['single']} is in "
            "'single' and would take T for the batch: call set_step_mode(net, 'multi') or set_step_mode(net, 'single')"
        )
    if plain and "multi" in modes:
        raise ShapeError(
            f"{net} is in step mode 'multi', and {', '.join(plain)} would be given a sequence [T, B, ...] for a batch: "
            "use the layer of the same name of spikecore.nn, wrap it in fold_time(module), or "
            "set_step_mode(net, 'single')"
        )


def _takes_no_sequence(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Flatten):
        return layer.start_dim == 1
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters > 1
    return isinstance(layer, _SILENT)


def explain(net: nn.Module, error: BaseException) -> str | None:
    """What to say when a layer of `net` that does not fold time made `error`; None when that is not the cause."""
    if all(getattr(part, "step_mode", "single") == "single" for part in net.modules()):
        return None
    folding: set[int] = set()
    for module in net.modules():
        if isinstance(module, FoldsTime | NormedNeuron):
            folding.update(id(part) for part in module.modules())
    plain = {id(part): _where(part, name) for name, part in net.named_modules() if id(part) not in folding}
    calls = [(part, x) for part, x in _calls(error) if type(part).__module__.startswith("torch.nn")]
    if not calls or id(calls[-1][0]) not in plain:
        return None
    part, x = calls[-1]
    got = f"{plain[id(part)]} was given {tuple(x.shape)}"
    rank = next((rank for rank, kinds in _EXACT.items() if isinstance(part, kinds)), None)
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


def _where(module: nn.Module, name: str) -> str:
    return type(module).__name__ + (f" at {name!r}" if name else "")


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
