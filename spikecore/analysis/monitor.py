"""`Monitor`: records inputs, outputs, attributes or gradients of chosen layers, in bounded memory.

    what           recorded at every call of a layer
    output         its output
    input          its inputs
    attribute      an attribute, before or after the call
    grad_output    dL/d output, in the backward pass
    grad_input     dL/d input

Two options bound the memory: `keep` keeps the last N records of each layer, `reduce` keeps one running value. `every=k`
records every k-th call only.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook as multi_grad_hook
from torch.utils.hooks import RemovableHandle

from spikecore.analysis.selection import Where, select_layers
from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.nn.layers.recurrent import Recurrent
from spikecore.nn.neuron import Neuron

What = Literal["output", "input", "attribute", "grad_output", "grad_input"]
Reduce = Literal["mean", "sum", "max", "min"]

_FOLD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": torch.add,
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}


class Monitor:
    """Records values of the layers of a net inside its `with` block; the hooks are gone when the block ends.

    Args:
        net: the net that will be called, or a part of it.
        what: `output`, `input`, `attribute`, `grad_output` or `grad_input`.
        where: the layers: a name, a type, a predicate `(name, module) -> bool`, or a sequence of these.
        attribute: with `what="attribute"`: a dotted path from the layer; a step may be a key of a mapping
            (`"recorded.v"`: the membrane potential of a neuron made with `record=("v",)`).
        when: with `what="attribute"`: read it `after` or `before` the call.
        transform: what is recorded of a value, e.g. `lambda spikes: spikes.mean(0)`; the value itself by default.
        keep: records held per layer, the newest; None: all of them.
        reduce: instead of records, hold their `mean`, `sum`, `max` or `min`, elementwise over all recorded calls.
        every: record calls 0, k, 2k, ... of each layer.

    A layer inside a recurrent container is called once per step; in multi-step mode the steps of one call of the
    container are one record, `[T, B, ...]`, and its attributes are read around that call. Gradients are recorded step
    by step there, the last step first.

    Records are detached copies on the layer's device. Several tensors (a layer that returns a tuple) are recorded as a
    tuple; a call with one input records that input. Inputs given by keyword follow the others.

    Raises:
        OptionError: a wrong option, or no such layer (with the nearest names). In a call: the layer has no such
            attribute.
        StateError: in a call of `net`: a monitored layer was replaced or removed, or one that `where` picks was added,
            since the block began; or the monitor was entered twice.
        ShapeError: with `reduce`: a value has another shape than the ones before.

    Warns:
        UserWarning: with `grad_input` or `grad_output`: no gradient flows there (under no_grad nothing is said).

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with Monitor(net, "output", where=nn.ReLU) as monitor:
        ...     _ = net(torch.zeros(4, 2))
        >>> monitor.names, monitor["1"][0].shape
        (('1',), torch.Size([4, 3]))
    """

    def __init__(
        self,
        net: nn.Module,
        what: What = "output",
        where: Where = Neuron,
        *,
        attribute: str | None = None,
        when: Literal["before", "after"] = "after",
        transform: Callable[[Any], Any] | None = None,
        keep: int | None = 16,
        reduce: Reduce | None = None,
        every: int = 1,
    ) -> None:
        _check(what, attribute, when, keep, reduce, every)
        self.net, self.what, self.where = net, what, where
        self.attribute, self.when, self.transform = attribute, when, transform
        self.keep, self.reduce, self.every = keep, reduce, every
        self.enabled = True
        self._layers = select_layers(net, where)
        self._handles: list[RemovableHandle] = []
        self._open = False
        self.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """The monitored layers, in the net's order."""
        return tuple(self._layers)

    def __getitem__(self, layer: str | int) -> list[Any]:
        """The records of a layer, by name or by its place in `names`; oldest first. With `reduce`, at most one.

        Raises:
            KeyError: the layer is not monitored.
        """
        name = self.names[layer] if isinstance(layer, int) else layer
        if name not in self._records:
            raise KeyError(f"{name!r} is not monitored; monitored are {', '.join(map(repr, self.names))}")
        records = list(self._records[name])
        if not self._is_mean:
            return records
        count = self._counts[name]
        return [_map(lambda total: total / count, record) for record in records]

    def items(self) -> list[tuple[str, list[Any]]]:
        """`(name, records)` of every monitored layer."""
        return [(name, self[name]) for name in self.names]

    def num_recorded(self, layer: str) -> int:
        """How many calls of the layer were recorded, including those no longer kept."""
        return self._counts[layer]

    def clear(self) -> None:
        """Drop the records; calls are counted from 0 again."""
        most = None if self.reduce else self.keep
        self._records: dict[str, deque[Any]] = {name: deque(maxlen=most) for name in self._layers}
        self._counts = dict.fromkeys(self._layers, 0)
        self._calls = dict.fromkeys(self._layers, 0)
        self._warned: set[str] = set()

    def disable(self) -> None:
        """Record nothing until `enable`."""
        self.enabled = False

    def enable(self) -> None:
        """Resume recording."""
        self.enabled = True

    def __enter__(self) -> Monitor:
        if self._open:
            raise StateError("this monitor is already recording: leave its `with` block first, or make another Monitor")
        self._refuse_changed_layers()
        self._open = True
        try:
            self._handles.append(self.net.register_forward_pre_hook(self._guard()))
            for name, module in self._layers.items():
                self._handles += self._attach(name, module)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove every hook; the records stay."""
        self._open = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # Hooks are closures, not methods, so that a deepcopy of the net does not copy the monitor. They compare the module
    # that is called, so that calls of the copy are not recorded.

    def _guard(self) -> Callable[..., None]:
        def check(module: nn.Module, args: Any) -> None:
            if module is self.net:
                self._refuse_changed_layers()

        return check

    def _attach(self, name: str, layer: nn.Module) -> list[RemovableHandle]:
        def record(module: nn.Module, values: Callable[[], Any]) -> None:
            if module is layer and self._open and self.enabled:
                self._see(name, values)

        if self.what == "grad_input":
            return [layer.register_full_backward_hook(lambda module, grads, _: record(module, lambda: grads))]
        if self.what == "grad_output":

            def forward(module: nn.Module, args: Any, out: Any) -> None:
                tensors = [value for value in _tensors(out) if value.requires_grad]
                if tensors:
                    multi_grad_hook(tensors, lambda grads: record(module, lambda: tuple(grads)))
                elif module is layer and torch.is_grad_enabled():
                    self._warn(name)

            return [layer.register_forward_hook(forward)]
        container = self._container_of(name)
        if self.what == "attribute":
            called = layer if container is None else container

            def read(module: nn.Module) -> None:
                if module is called:
                    record(layer, lambda: self._read(name, layer))

            if self.when == "before":
                return [called.register_forward_pre_hook(lambda module, args: read(module))]
            return [called.register_forward_hook(lambda module, args, out: read(module))]
        steps: list[Any] | None = None  # of the call of the container that runs now

        def step(module: nn.Module, value: Any) -> None:
            if steps is None:
                record(module, lambda: value)
            elif module is layer and self._open and self.enabled:
                steps.append(_map(lambda tensor: tensor.detach().clone(), value))

        def begin(module: nn.Module, args: Any) -> None:
            nonlocal steps
            if module is container:
                steps = [] if container.step_mode == "multi" else None

        def end(module: nn.Module, args: Any, out: Any) -> None:
            nonlocal steps
            if module is container and steps is not None:
                values, steps = steps, None
                if values:
                    record(layer, lambda: _over_time(values))

        if self.what == "output":
            handles = [layer.register_forward_hook(lambda module, args, out: step(module, out))]
        else:
            handles = [
                layer.register_forward_pre_hook(
                    lambda module, args, named: step(module, (*args, *named.values())), with_kwargs=True
                )
            ]
        if container is not None:
            handles += [container.register_forward_pre_hook(begin), container.register_forward_hook(end)]
        return handles

    def _container_of(self, name: str) -> Recurrent | None:
        """The outermost recurrent container of the net around a layer."""
        path = name.split(".") if name else []
        for length in range(len(path)):
            module = self.net.get_submodule(".".join(path[:length]))
            if isinstance(module, Recurrent):
                return module
        return None

    def _see(self, name: str, values: Callable[[], Any]) -> None:
        call = self._calls[name]
        self._calls[name] = call + 1
        if call % self.every:
            return
        value = values()
        if isinstance(value, tuple) and len(value) == 1:
            value = value[0]
        if self.what == "grad_input" and not _tensors(value):
            self._warn(name)
            return
        with torch.no_grad():
            value = self._transform(name, _map(torch.Tensor.detach, value))
            self._store(name, _map(torch.Tensor.clone, value))
        self._counts[name] += 1

    def _transform(self, name: str, value: Any) -> Any:
        return value if self.transform is None else self.transform(value)

    def _store(self, name: str, value: Any) -> None:
        records = self._records[name]
        if self.reduce in ("mean", "sum"):
            value = _map(_widen, value)
        if self.reduce is not None and records:
            value = _fold(_FOLD[self.reduce], records.pop(), value, name)
        records.append(value)

    def _read(self, name: str, layer: nn.Module) -> Any:
        assert self.attribute is not None
        value: Any = layer
        for step in self.attribute.split("."):
            try:
                value = value[step] if isinstance(value, Mapping) else getattr(value, step)
            except (AttributeError, KeyError):
                hint = ""
                if isinstance(layer, Neuron) and self.attribute.startswith("recorded."):
                    hint = f": make the neuron with record=({step!r},)"
                raise OptionError(
                    f"layer {name!r} ({type(layer).__name__}) has no {self.attribute!r}: nothing at {step!r}{hint}"
                ) from None
        return dict(value) if isinstance(value, Mapping) else value

    def _warn(self, name: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"no gradient flows to the {self.what[5:]} of layer {name!r}, so nothing is recorded of it: its input "
                "needs requires_grad_(), or a layer before it parameters that are trained",
                stacklevel=2,
            )

    def _refuse_changed_layers(self) -> None:
        now = dict(self.net.named_modules())
        changed = []
        for name, module in self._layers.items():
            if name not in now:
                changed.append(f"{name!r} ({type(module).__name__}) was removed")
            elif now[name] is not module:
                changed.append(f"{name!r} ({type(module).__name__}) was replaced by a {type(now[name]).__name__}")
        if not changed:
            extra = select_layers(self.net, self.where).keys() - self._layers.keys()
            changed = [f"{name!r} ({type(now[name]).__name__}) was added" for name in now if name in extra]
        if changed:
            raise StateError(
                f"the net changed under its monitor: {'; '.join(changed)}. Leave the `with Monitor(...)` block before "
                "you change layers, and make a new Monitor of the changed net"
            )

    @property
    def _is_mean(self) -> bool:
        return self.reduce == "mean"


def _check(what: str, attribute: str | None, when: str, keep: int | None, reduce: str | None, every: int) -> None:
    for option, value, allowed in (
        ("what", what, get_args(What)),
        ("when", when, ("before", "after")),
        ("reduce", reduce, (None, *get_args(Reduce))),
    ):
        if value not in allowed:
            raise OptionError(f"Monitor: {option} must be one of {', '.join(map(repr, allowed))}; got {value!r}")
    if (what == "attribute") != (attribute is not None):
        raise OptionError(
            f"Monitor: attribute=... goes with what='attribute'; got what={what!r}, attribute={attribute!r}"
        )
    counts = [every] if keep is None else [every, keep]
    if not all(isinstance(count, int) and count >= 1 for count in counts):
        raise OptionError(
            f"Monitor: every and keep must be whole numbers of at least 1 (keep=None: all), got {every=}, {keep=}"
        )


def _widen(value: Tensor) -> Tensor:
    """The value in a dtype in which sums over many calls keep their precision."""
    if value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    if value.is_floating_point() or value.is_complex():
        return value
    return value.long()


def _fold(function: Callable[[Tensor, Tensor], Tensor], total: Any, value: Any, name: str) -> Any:
    if isinstance(total, tuple | list) and isinstance(value, tuple | list) and len(total) == len(value):
        return tuple(_fold(function, *pair, name) for pair in zip(total, value, strict=True))
    if not (isinstance(total, Tensor) and isinstance(value, Tensor)):
        raise OptionError(f"layer {name!r}: reduce takes tensors, got {type(value).__name__}: give a transform")
    if total.shape != value.shape:
        raise ShapeError(
            f"layer {name!r} gave {tuple(value.shape)} after {tuple(total.shape)}, and reduce works elementwise: give "
            "a transform whose result has one shape (`lambda x: x.mean()`), or use keep"
        )
    return function(total, value)


def _over_time(steps: list[Any]) -> Any:
    """The values `[1, B, ...]` of single steps as one, `[T, B, ...]`."""
    first = steps[0]
    if isinstance(first, Tensor):
        return torch.cat(steps)
    if isinstance(first, tuple | list):
        return tuple(_over_time(list(parts)) for parts in zip(*steps, strict=True))
    if isinstance(first, dict):
        return {key: _over_time([step[key] for step in steps]) for key in first}
    return first


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    tensors: list[Tensor] = []
    if isinstance(value, tuple | list):
        for part in value:
            tensors += _tensors(part)
    return tensors


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    """`function` of every tensor in a tensor, tuple, list or dict."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return tuple(_map(function, part) for part in value)
    if isinstance(value, dict):
        return {key: _map(function, part) for key, part in value.items()}
    return value
