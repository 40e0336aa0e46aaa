"""Every private name of torch that spikecore uses, with the reason. No other module uses one.

Torch does not guarantee these names. A test compares torch's version with `CHECKED_WITH` and looks for private names
elsewhere in core. Before you raise the version, check this module and run all tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode

CHECKED_WITH = "2.13"
"""The version of torch with which all of this was checked last."""

NAMES: Mapping[str, str] = {
    "torch._C._functorch.peek_interpreter_stack": "is a transform of torch.func at work? Nothing public says so",
    "torch._C._are_functorch_transforms_active": "the same question where only the answer counts, not the level",
    "torch._C._functorch.is_legacy_batchedtensor": "is this one of `is_grads_batched`? No kernel can read it",
    "torch._C._len_torch_dispatch_stack": "is a dispatch mode (a profiler's, a tracer's) at work?",
    "torch._C._get_tracing_state": "is torch.jit.trace recording? Under it a direct call would become a constant",
    "torch.autograd.forward_ad._current_level": "are forward-mode derivatives on? If not, unpack_dual raises",
    "torch.Tensor._is_zerotensor": "zeros without memory, which a kernel must not read",
    "torch._C._autograd._get_sequence_nr": "which number will autograd give to the next node? See `nn.memory.Span`",
    "torch._C._current_graph_task_id": "is this thread in a backward pass? Autograd's own threads know nothing else",
    "torch._C._current_autograd_node": "the node that the backward pass is at",
    "torch.autograd.graph.Node._sequence_nr": "the number that autograd gave to a node",
    "_forward_cls": "the autograd.Function that a node of the graph belongs to",
    "torch._C._FunctionBase.apply": "calls an autograd.Function at the price of its C++ part, see `apply_unchecked`",
    "torch.nn.modules.batchnorm._BatchNorm": "the common base of the batch norms",
    "torch.nn.modules.batchnorm._NormBase": "the common base of batch and instance norms",
    "torch.Tensor._backward_hooks": "does a hook watch this tensor's gradient? Then it must go through the tensor",
    "_check_input_dim": "how many axes does this batch norm take? It says so in torch's own words",
    "torch.nn.Module._forward_hooks": "does a hook watch this module? Then nothing may be fused past it",
    "torch.nn.Module._forward_pre_hooks": "the same for hooks in front of it",
    "torch._C._autograd._unsafe_set_version_counter": "gives a new tensor a count of writes that no other one has",
    "torch.nn.modules.module._global_forward_hooks": "does a hook watch all modules?",
    "torch.nn.modules.module._global_forward_pre_hooks": "the same for hooks in front of them",
    "_dynamo_marked_constant": "all that torch.compiler.assume_constant_result sets, which imports the whole compiler",
    "torch._subclasses.fake_tensor.FakeTensorMode": "tensors without memory; the conformance suite asks with them",
    "torch.nn.Conv2d._conv_forward": "convolves with another weight; subclasses override it",
    "torch.UntypedStorage._cdata": "the identity of a tensor's storage, see `backends.spike_bits`",
    "torch.Tensor._version": "how often the tensor was written to",
    "torch.utils._python_dispatch.TorchDispatchMode": "sees every operator below autograd; nothing public counts them",
    "_schema": "the name of an operator that a dispatch mode sees, its arguments' names, and what it makes anew",
    "torch._dynamo.reset": "forgets what was compiled; the conformance suite compiles many small nets",
}

_AnyFunction = TypeVar("_AnyFunction", bound=Callable[..., Any])

peek_transform: Callable[[], object] = torch._C._functorch.peek_interpreter_stack
"""The transform of `torch.func` at work, or None."""
transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Is a transform of `torch.func` at work?"""
is_batch_of_autograd: Callable[[Tensor], bool] = torch._C._functorch.is_legacy_batchedtensor
"""Is this what `is_grads_batched` of `torch.autograd.grad` makes of gradients? `torch.func.vmap` has its own."""
num_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
"""How many dispatch modes are at work."""
tracing_state: Callable[[], object] = torch._C._get_tracing_state
"""What `torch.jit.trace` records into, or None."""
is_zero_tensor: Callable[[Tensor], bool] = Tensor._is_zerotensor
"""Zeros that torch only thinks of, without memory."""
next_node: Callable[[], int] = torch._C._autograd._get_sequence_nr
"""The number that autograd will give to the next node of this thread's graph."""
graph_task: Callable[[], int] = torch._C._current_graph_task_id
"""The backward pass that this thread is in; -1 outside of one."""
current_node: Callable[[], Any] = torch._C._current_autograd_node
"""The node that this thread's backward pass is at; None outside of one."""


def backward_function() -> type[Function] | None:
    """The `autograd.Function` whose backward pass this thread is in; None where torch's own operators are."""
    return getattr(current_node(), "_forward_cls", None)


def node_number(node: Any) -> int:
    """The number that autograd gave to a node of its graph when it was made."""
    number: int = node._sequence_nr()
    return number


def has_forward_derivatives() -> bool:
    """Is a level of forward-mode derivatives open?"""
    return forward_ad._current_level >= 0


def apply_unchecked(function: type[Function]) -> Callable[..., Any]:
    """`function.apply` without what it does for transforms of `torch.func`.

    `Function.apply` inspects the signature of `forward` at every call, for the sake of transforms; that takes longer
    than a small kernel itself. Where no transform is at work, its parent's `apply` does all that is needed.
    """
    apply: Callable[..., Any] = super(Function, function).apply  # type: ignore[misc]
    return apply


def constant_when_compiled(function: _AnyFunction) -> _AnyFunction:
    """torch.compile calls the function once, outside of what it traces, and takes the result for a constant."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def wants_own_gradient(x: Tensor) -> bool:
    """Is the gradient of this very tensor kept, or watched by a hook?"""
    return bool(x.retains_grad or x._backward_hooks)


def check_norm_input(norm: Any, x: Tensor) -> None:
    """Refuse an input with a number of axes that the batch norm does not take.

    Raises:
        ValueError: it does not.
    """
    norm._check_input_dim(x)


def has_hooks(module: torch.nn.Module) -> bool:
    """Does a hook watch what goes into the module or comes out of it?"""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def are_all_watched() -> bool:
    """Does a hook watch what goes into any module or comes out of it?"""
    hooks: Any = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


def num_hooks(module: torch.nn.Module) -> int:
    """How many hooks watch what goes into the module or comes out of it."""
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def convolves_itself(layer: torch.nn.Conv2d) -> bool:
    """Does a subclass convolve in a way of its own?"""
    return type(layer)._conv_forward is not torch.nn.Conv2d._conv_forward


def convolve(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution of torch gives with another weight, padding of every kind included."""
    out: Tensor = layer._conv_forward(x, weight, layer.bias)
    return out


def storage_key(tensor: Tensor) -> int:
    """The address of the record of the tensor's storage (not of its memory): unique among storages that are there."""
    key: int = tensor.untyped_storage()._cdata
    return key


class WeakStorage:
    """A weak reference to a tensor's storage: while it is there, no other storage gets the same `storage_key`."""

    def __init__(self, tensor: Tensor) -> None:
        reference: Any = StorageWeakRef
        self._reference = reference(tensor.untyped_storage())

    def is_alive(self) -> bool:
        """Is the storage still held by a tensor?"""
        return not self._reference.expired()


def version_of(tensor: Tensor) -> int:
    """How often the tensor, or another view of its storage, was written to; not for tensors of inference mode."""
    return tensor._version


_FIRST_NUMBER, _LAST_NUMBER = 1 << 20, 1 << 30
_NUMBERS = itertools.cycle(range(_FIRST_NUMBER, _LAST_NUMBER, 1 << 10))


def number_writes(tensor: Tensor) -> None:
    """Let a new tensor, which nobody has saved yet, count its writes from a number of its own.

    A tensor that counts from 0, as `x.data` does, then never comes to the same count by a write or two.
    """
    setter: Any = torch._C._autograd._unsafe_set_version_counter
    setter((tensor,), (next(_NUMBERS),))


class UnchangedTensor:
    """Tells whether a tensor has been written to since this was made; holds nothing of its memory.

    `x.data` is the same memory under a count of its own, which begins at 0 again. So a count says little by itself:
    the one of the tensor as it was is kept, by an alias that points at no memory.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.version = version_of(tensor)
        self._alias = tensor.detach()
        self._alias.data = tensor.new_empty(0)

    def is_still(self, tensor: Tensor) -> bool:
        """Neither this tensor of the same storage nor the one of then has been written to, as far as torch sees."""
        return version_of(tensor) == self.version == version_of(self._alias)


def has_foreign_memory(tensor: Tensor) -> bool:
    """Do NumPy, another library or another process hold this memory, who write to it without torch's knowledge?

    So it is for memory that came from outside, for a tensor that was given to NumPy, and for shared memory. What was
    only handed out by DLPack does not show.
    """
    storage: Any = tensor.untyped_storage()
    return not storage.resizable() or bool(storage.is_shared())


def operator_name(operator: Any) -> str:
    """Of an operator that a dispatch mode sees, such as `aten::mm`."""
    name: str = operator._schema.name
    return name


def arguments_of(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name → value of what an operator that a dispatch mode sees is called with."""
    arguments = operator._schema.arguments
    names = [argument.name for argument in arguments]
    defaults = {argument.name: argument.default_value for argument in arguments}
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


def makes_memory(operator: Any) -> bool:
    """Whether an operator that a dispatch mode sees gives tensors of their own, and no views of what it is given."""
    return any(value.alias_info is None for value in operator._schema.returns)


def fake_mode() -> Any:
    """A mode in which tensors have no memory; imported here, since it loads much of the compiler."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def forget_compiled() -> None:
    """Forget everything that torch.compile compiled in this process."""
    import torch._dynamo

    torch._dynamo.reset()


__all__ = [
    "CHECKED_WITH",
    "NAMES",
    "BatchNorm",
    "DispatchMode",
    "NormBase",
    "UnchangedTensor",
    "WeakStorage",
    "apply_unchecked",
    "are_all_watched",
    "arguments_of",
    "backward_function",
    "constant_when_compiled",
    "convolve",
    "convolves_itself",
    "current_node",
    "fake_mode",
    "forget_compiled",
    "graph_task",
    "has_foreign_memory",
    "has_forward_derivatives",
    "has_hooks",
    "is_batch_of_autograd",
    "is_zero_tensor",
    "makes_memory",
    "next_node",
    "node_number",
    "num_dispatch_modes",
    "num_hooks",
    "number_writes",
    "operator_name",
    "peek_transform",
    "storage_key",
    "tracing_state",
    "transforms_active",
    "version_of",
]
