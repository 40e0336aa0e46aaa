"""How `trace_net` follows a net: torch.fx, with the leaves of spiking nets and errors that show the user's line.

fx runs `forward` with stand-ins (proxies) for the tensors and writes down what is done with them. Changed here:

* Neurons, blocks, folded layers and all else with state are leaves, as torch's own layers are.
* Arguments of `forward` that have a default take it; fx would put a proxy there, for which `is None` is never true.
* The net stays as it was: fx would hang constants on it, and `forward` may set plain attributes.
* A random number that `forward` draws is a call in the graph; fx would freeze it to a constant.
* `y += x` writes into `y`; fx would write down `y = y + x`. The same, unless somebody reads the old `y`: an error here.
* Nets that other threads run meanwhile run as always: fx patches `torch.nn.Module` for the whole process.
"""

from __future__ import annotations

import inspect
import linecache
import operator
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from spikecore.errors import NetTraceError, SpikeError
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.block import NormedNeuron
from spikecore.nn.layers.fold import FoldsTime
from spikecore.nn.state import Stateful

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_BETWEEN = tuple(
    os.path.join(_OURS, "nn", name) for name in ("tracer.py", "tracing.py", "guard.py", "model.py", "time_axis.py")
)
"""Files whose frames stand between the user's code and fx, and say nothing about it."""
_LOCK = threading.RLock()
"""fx patches a class of torch and puts back what it found there: two traces at once would leave it patched."""

_MAKERS = tuple(
    getattr(torch, name)
    for name in ("zeros", "ones", "empty", "full", "rand", "randn", "randint", "randperm", "arange", "linspace", "eye")
)
"""Functions that make a tensor from sizes: torch refuses a proxy for a size before it asks anybody."""

SCOPE, PLACE, CONSTANT = "spikecore_scope", "spikecore_place", "spikecore_constant"
"""Keys in the `meta` of a node: the module whose `forward` made the call, the user's line, whether it is a constant."""


def is_leaf(module: nn.Module, leaves: tuple[type[nn.Module], ...] = ()) -> bool:
    """Whether a call of `module` is one node, and what happens inside is its own business."""
    if isinstance(module, (Stateful, NormedNeuron, FoldsTime, torch.jit.ScriptModule, *leaves)):
        return True
    if isinstance(getattr(module, "capabilities", None), NeuronCapabilities | EncoderCapabilities):
        return True
    if isinstance(module, nn.Sequential):
        return False
    if getattr(module, "is_one_node", False):
        return True
    # A subclass that keeps the forward of torch's layer is that layer.
    home = str(getattr(type(module).forward, "__module__", ""))
    return home.startswith(("torch.nn.", "torch.ao.nn."))


class NetTracer(fx.Tracer):
    """One trace of one net.

    Args:
        net: the root.
        leaves: further classes of modules to take as one node.
        num_inputs: how many arguments of `forward` are inputs; by default those without a default.
    """

    def __init__(self, net: nn.Module, leaves: tuple[type[nn.Module], ...], num_inputs: int | None) -> None:
        super().__init__(autowrap_functions=_MAKERS, param_shapes_constant=True)
        self._autowrap_search.append(torch)
        self.net, self.leaves, self.num_inputs = net, leaves, num_inputs
        self.constants: list[Tensor] = []
        self._caller = ""
        self._failed_in: tuple[str, str] | None = None  # innermost module, and its class
        self._thread = threading.get_ident()
        self.overwritten: dict[fx.Node, tuple[str, int]] = {}  # by `+=` and the like, and where
        named = [*net.named_parameters(), *net.named_buffers()]
        self._paths = {id(value): name for name, value in named}

    def traced(self) -> fx.Graph:
        """The graph.

        Raises:
            NetTraceError: the net cannot be traced.
        """
        with _LOCK, _Calls(self):
            # `forward` may set attributes to proxies; each module gets back what it had.
            before = [(name, module, _attributes(module)) for name, module in self.net.named_modules()]
            try:
                graph = self.trace(self.net)
            except NetTraceError:
                raise
            except Exception as error:
                raise NetTraceError(self._explain(error)) from error
            finally:
                written = _put_back(before)
        if written:
            name, place = written[0]
            raise NetTraceError(
                f"{type(self.net).__name__} cannot be traced to a graph: `forward` keeps a tensor for its next call, "
                f"as self.{name}{_source(*place)}\n"
                "  derive the module that keeps it from spikecore.nn.Stateful, or take it as one node: "
                "trace_net(net, leaves=(ItsClass,))"
            )
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m, self.leaves)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        self._caller = self.scope.module_path
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self._failed_in = self._failed_in or (self.path_of_module(m), type(m).__name__)
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if threading.get_ident() != self._thread or not isinstance(attr_val, Tensor):
            return attr_val
        if isinstance(attr_val, nn.Parameter):
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        path = self._paths.get(id(attr_val))
        if path is None:
            return attr_val
        if path not in parameter_proxy_cache:  # fx has no stand-in for a buffer whose shape is known
            parameter_proxy_cache[path] = self.create_proxy("get_attr", path, (), {})
        return parameter_proxy_cache[path]

    def path_of_module(self, mod: nn.Module) -> str:
        path = (self.submodule_paths or {}).get(mod)
        if path is None:
            raise _HomelessModuleError(f"it calls a {type(mod).__name__} that is not among its submodules")
        return path

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor):
            return self._tensor(a)
        return super().create_arg(a)

    def _tensor(self, value: Tensor) -> fx.Node:
        path = self._paths.get(id(value)) or self.tensor_attrs.get(value)
        if path:
            return self.create_node("get_attr", path, (), {})
        index = self._constant_index(value)
        node = self.create_node("get_attr", f"constant_{index}", (), {})
        node.meta[CONSTANT] = index
        return node

    def _constant_index(self, value: Tensor) -> int:
        """The place of this very tensor in `constants`, where it is put if it is new."""
        for index, constant in enumerate(self.constants):
            if constant is value:  # `in` would compare values
                return index
        self.constants.append(value)
        return len(self.constants) - 1

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self._check_reads(node)
        # While a leaf's node is made, fx's scope is the leaf itself.
        node.meta[SCOPE] = self._caller if node.op == "call_module" else self.scope.module_path
        frame, line = _innermost(_frames_up())
        node.meta[PLACE] = ("", 0) if frame is None else (frame.f_code.co_filename, line)
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def _check_reads(self, node: fx.Node) -> None:
        for given in node.all_input_nodes:
            if given in self.overwritten and node.target is not getattr:
                file, line = self.overwritten[given]
                raise NetTraceError(
                    f"{type(self.net).__name__} cannot be traced to a graph: `forward` reads {given.name!r} after it "
                    f"wrote into it{_source(file, line)}\n"
                    "  write the result to a new tensor: y = y + x in the place of y += x"
                )

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        net = self.net
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self._input_names(root_fn)]
        by_name = [p.name for p in _parameters(root_fn) if p.kind is inspect.Parameter.KEYWORD_ONLY]

        def call(*inputs: Any) -> Any:
            positional = [value for value in inputs if value.node.target not in by_name]
            named = {value.node.target: value for value in inputs if value.node.target in by_name}
            if self.is_leaf_module(net, ""):
                return self.create_proxy("call_module", "", tuple(positional), named, name="net")
            return root_fn(net, *positional, **named)

        return call, proxies

    def _input_names(self, forward: Callable[..., Any]) -> list[str]:
        """The arguments of `forward` that are inputs, in order.

        Raises:
            NetTraceError: it takes fewer or more than `num_inputs`.
        """
        positional: list[str] = []
        named: list[str] = []
        many, num_needed = "", 0
        for parameter in _parameters(forward):
            is_needed = parameter.default is inspect.Parameter.empty
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                many = parameter.name
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                if is_needed:
                    named.append(parameter.name)
            elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                positional.append(parameter.name)
                num_needed += is_needed
        count = self.num_inputs
        if count is None:
            needed = [*positional[:num_needed], *named]
            if needed:
                return needed
            # All arguments have defaults, or `forward` takes `*args`: a net has an input, so the first one is it.
            if positional:
                return positional[:1]
            return [many] if many else []
        num_positional = count - len(named)
        if many:
            positional += [f"{many}_{index}" for index in range(num_positional - len(positional))]
        if not num_needed <= num_positional <= len(positional):
            raise NetTraceError(
                f"{type(self.net).__name__}.forward takes {', '.join([*positional, *named]) or 'nothing'}; got {count} "
                "example inputs: give one for each argument without a default, in order"
            )
        return [*positional[:num_positional], *named]

    def _explain(self, error: Exception) -> str:
        frame, line = _where(error.__traceback__)
        text, cure = _advice(error)
        where = "" if frame is None else _source(frame.f_code.co_filename, line)
        inside = ""
        if self._failed_in is not None:
            inside = f" (in {self._failed_in[0]!r}, {self._failed_in[1]})"
        return f"{type(self.net).__name__} cannot be traced to a graph: {text}{inside}{where}\n  {cure}"


class _HomelessModuleError(NameError):
    """A module that belongs to no net."""


class _Proxy(fx.Proxy):
    """Remembers what `+=` and the like write into. fx's own proxy computes a new value and forgets the old one."""

    def _overwritten_by(self, result: Any) -> Any:
        if not _is_number(self.node):  # a number is not written into: Python makes a new one
            frame, line = _innermost(_frames_up())
            tracer: Any = self.tracer
            tracer.overwritten[self.node] = ("", 0) if frame is None else (frame.f_code.co_filename, line)
        return result

    def __iadd__(self, other: Any) -> Any:
        return self._overwritten_by(operator.add(self, other))

    def __isub__(self, other: Any) -> Any:
        return self._overwritten_by(operator.sub(self, other))

    def __imul__(self, other: Any) -> Any:
        return self._overwritten_by(operator.mul(self, other))

    def __itruediv__(self, other: Any) -> Any:
        return self._overwritten_by(operator.truediv(self, other))


def _is_number(node: fx.Node) -> bool:
    """Whether it is a size or a number made of sizes, as far as fx knows."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "ndimension", "numel", "nelement", "item")
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    given = node.all_input_nodes
    return bool(given) and getattr(node.target, "__module__", "") == "_operator" and all(map(_is_number, given))


class _Calls(TorchFunctionMode):
    """Sees every call of torch within `forward`, also those that hold a proxy where torch looks for none."""

    def __init__(self, tracer: NetTracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if _holds_proxy((args, kwargs)):
            return fx.Proxy.__torch_function__(func, types, args, kwargs)
        before = torch.get_rng_state()
        result = func(*args, **kwargs)
        if torch.equal(before, torch.get_rng_state()):
            return result
        torch.set_rng_state(before)
        if getattr(func, "__name__", "") in ("manual_seed", "set_rng_state", "seed"):
            return result
        return self.tracer.create_proxy("call_function", func, args, kwargs)


def _holds_proxy(value: Any) -> bool:
    if isinstance(value, fx.Proxy):
        return True
    if isinstance(value, tuple | list):
        return any(_holds_proxy(part) for part in value)
    if isinstance(value, dict):
        return any(_holds_proxy(part) for part in value.values())
    if isinstance(value, slice):
        return _holds_proxy((value.start, value.stop, value.step))
    return False


def _attributes(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(vars(module)), dict(module._buffers)


def _put_back(
    before: list[tuple[str, nn.Module, tuple[dict[str, Any], dict[str, Any]]]],
) -> list[tuple[str, tuple[str, int]]]:
    """Give every module the attributes it had: `forward` may have set some, to proxies.

    Returns:
        Those that were there before and now held a proxy: their qualified names, and where that was computed.
    """
    written: list[tuple[str, tuple[str, int]]] = []
    for path, module, (attributes, buffers) in before:
        for old, now in ((attributes, vars(module)), (buffers, module._buffers)):
            if len(now) == len(old) and all(now.get(name) is value for name, value in old.items()):
                continue
            for name in old:
                value = now.get(name)
                if isinstance(value, fx.Proxy):
                    written.append((f"{path}.{name}".lstrip("."), value.node.meta[PLACE]))
            now.clear()
            now.update(old)
    return written


def _parameters(forward: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(forward).parameters.values())[1:]


def _frames_up() -> Iterator[tuple[FrameType, int]]:
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _innermost(frames: Iterator[tuple[FrameType, int]]) -> tuple[FrameType | None, int]:
    """Of frames from inside out, the first one of the user's; of core's own net, if there is none."""
    ours: tuple[FrameType | None, int] = (None, 0)
    for frame, line in frames:
        file = os.path.abspath(frame.f_code.co_filename)
        if frame.f_code.co_name == "create_args_for_root" or file.endswith(_BETWEEN[1]):
            break  # from here outwards it is the caller of the trace
        if file.startswith(_TORCH) or file in _BETWEEN or "/importlib/" in file:
            continue
        if not file.startswith(_OURS):
            return frame, line
        if ours[0] is None:
            ours = frame, line
    return ours


def _where(trace: TracebackType | None) -> tuple[FrameType | None, int]:
    frames: list[tuple[FrameType, int]] = []
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return _innermost(iter(reversed(frames)))


def _source(file: str, line: int) -> str:
    text = linecache.getline(file, line).strip() or "(source not available)"
    return f'\n  File "{file}", line {line}\n    {text}'


_LEAF = "or take the module that does it as one node: trace_net(net, leaves=(ItsClass,))"


def _advice(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do."""
    text = " ".join(str(error).split())
    if "cannot be iterated" in text:
        return (
            "a loop runs over a tensor, whose length is not known",
            f"loop over a number that `__init__` stores and index the tensor with it, {_LEAF}",
        )
    if "control flow" in text:
        return (
            "a branch depends on the values or the shape of a tensor",
            f"decide it from an option that `__init__` stores, write it as torch.where, {_LEAF}",
        )
    if "Proxy" in text and ("integer" in text or "number" in text):
        return (
            "it reads a number from a tensor or from its shape",
            f"take the number from an option that `__init__` stores, leave out int() and float(), {_LEAF}",
        )
    if "'len' is not supported" in text:
        return "it takes the len() of a tensor", f"write x.shape[0] or x.size(0), {_LEAF}"
    if "item assignment" in text:
        return "it writes into a part of a tensor", f"build the result with torch.cat, torch.where or a mask, {_LEAF}"
    if isinstance(error, _HomelessModuleError):
        return text, "make the module in `__init__`, as an attribute or in a torch.nn.ModuleList or ModuleDict"
    if isinstance(error, SpikeError):
        return text, f"see the line; {_LEAF.removeprefix('or ')}"
    return (
        f"{type(error).__name__}: {text}",
        f"a trace runs `forward` with stand-ins for tensors, which have no values, {_LEAF}",
    )
