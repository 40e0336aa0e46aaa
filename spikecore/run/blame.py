"""Which layer of a net an exception comes from: the step of a neuron, its surrogate, or a hook on a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import nn

from spikecore.errors import BrokenPluginError, SpikeError
from spikecore.nn.neuron import Neuron
from spikecore.nn.state import Stateful
from spikecore.registry.loading import STRICT_VARIABLE, cause_text, is_strict


@contextmanager
def naming_layers(net: nn.Module) -> Iterator[None]:
    """Inside, an exception that a neuron, a surrogate or a forward hook raises names the layer.

    Raises:
        BrokenPluginError: in place of such an exception; `SPIKE_PLUGIN_STRICT=1` lets the original one through.
    """
    try:
        yield
    except SpikeError:
        raise
    except Exception as error:
        frames = _frames(error)
        place = _place(frames, net)
        if place is None or is_strict():
            raise
        frame, line = frames[-1]
        where = f"{frame.f_code.co_filename}:{line}"
        raise BrokenPluginError(
            f"{place} failed: {cause_text(error)} ({where}). {STRICT_VARIABLE}=1 shows the traceback."
        ) from error


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The calls that led to an exception, outermost first, each with its line."""
    frames, at = [], error.__traceback__
    while at is not None:
        frames.append((at.tb_frame, at.tb_lineno))
        at = at.tb_next
    return frames


def _place(frames: list[tuple[FrameType, int]], net: nn.Module) -> str | None:
    """The innermost of the net's neurons, surrogates and hooked modules that the calls went through."""
    layers = {id(module): (name, module) for name, module in net.named_modules()}
    surrogates: dict[int, tuple[str, list[str]]] = {}
    for name, module in net.named_modules():
        surrogate = getattr(module.config, "surrogate", None) if isinstance(module, Neuron) else None
        # The derivative is a static method, which gets the options alone.
        for part in (surrogate, getattr(surrogate, "config", None)):
            if part is not None:
                surrogates.setdefault(id(part), (_kind(surrogate), []))[1].append(name)
    callee: FrameType | None = None
    for frame, _ in reversed(frames):
        own = frame.f_locals.get("self")
        for value in frame.f_locals.values():
            if id(value) in surrogates:
                kind, names = surrogates[id(value)]
                return f"the surrogate {kind} of layer {', '.join(map(repr, names[:8]))}"
        if id(own) in layers:
            name, module = layers[id(own)]
            if isinstance(module, Stateful):
                return f"layer {name!r} ({_kind(module)})"
            # A hook is what torch's own caller of modules calls beside `forward`.
            is_called_by_torch = callee is not None and _is_torch(frame) and not _is_torch(callee)
            if callee is not None and is_called_by_torch and callee.f_locals.get("self") is not own:
                return f"a hook ({callee.f_code.co_name}) on layer {name!r} ({_kind(module)})"
        callee = frame
    return None


def _is_torch(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == nn.Module.__module__


def _kind(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
