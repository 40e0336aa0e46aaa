"""`optimize`: a copy of a net for inference whose spikes pass from layer to layer as bits.

Containers run their parts one after the other. Where one part gives spikes (a neuron, a block, max pooling) and the
next one multiplies or pools them, what passes between them is a bit per spike. Elsewhere, as behind the sum of a
residual branch, tensors pass, and layers look for the bits of those that are spikes. Weights are prepared in the order
in which the backend's kernels read them. Layer by layer the numbers are those of the net in eval mode.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from spikecore.backends.plain import is_plain
from spikecore.backends.products import DENSE
from spikecore.interfaces.products import SpikeBits
from spikecore.nn.block import NormedNeuron
from spikecore.nn.layers import Conv2d, Linear, MaxPool2d
from spikecore.nn.layers.fold import fold
from spikecore.nn.layers.pooling import pair
from spikecore.nn.model import Sequential, parts_of
from spikecore.nn.neuron import Neuron
from spikecore.nn.products import SpikeLayer, bit_backend, geometry_of, is_plain_layer
from spikecore.nn.state import stateful
from spikecore.torch_internals import BatchNorm, are_all_watched, has_hooks


def unflattened(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    """`[T * B, ...]` as `[T, B, ...]`; `[B, ...]` unchanged."""
    return x.view(*lead, *x.shape[1:]) if x.dim() == 2 else x.unflatten(0, lead)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Packed:
    """A sequence `[T, B, ...]`, or one step `[B, ...]`, as bits.

    Args:
        bits: of the T * B samples.
        lead: `(T, B)` or `(B,)`.
        floats: the same as a tensor, where there is one.
    """

    bits: SpikeBits
    lead: tuple[int, ...]
    floats: Tensor | None = None

    def unpacked(self) -> Tensor:
        """As a tensor."""
        return unflattened(self.bits.floats(), self.lead) if self.floats is None else self.floats


class BitSequential(Sequential):
    """A container whose parts hand their spikes on as bits in eval mode without gradients; else as any container."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, input: Tensor) -> Any:
        """As of `torch.nn.Sequential`."""
        is_inference = not self.training and not torch.is_grad_enabled()
        if not is_inference or torch.compiler.is_compiling() or not is_plain((input,)):
            return self._run_tensors(input)
        if torch.is_autocast_enabled(input.device.type) or are_all_watched():
            return self._run_tensors(input)
        value: Any = input
        parts = list(parts_of(self).values())
        for index, part in enumerate(parts):
            following = parts[index + 1] if index + 1 < len(parts) else None
            out = self._of_bits(part, value) if isinstance(value, _Packed) else None
            if out is None:
                out = part(_unpacked(value))
            if not isinstance(out, _Packed) and following is not None and _fires(part) and _takes_bits(following):
                out = _pack(out, following)
            value = out
        return _unpacked(value)

    def _run_tensors(self, value: Any) -> Any:
        for part in self:
            value = part(value)
        return value

    def _of_bits(self, part: nn.Module, value: _Packed) -> Any:
        """What a part gives for bits; None: it must have a tensor."""
        if not _takes_bits(part) or len(value.lead) != (2 if part.step_mode == "multi" else 1):
            return None
        if isinstance(part, MaxPool2d):
            return _pooled(part, value)
        assert isinstance(part, SpikeLayer)
        y = part.multiply_bits(part.layer if isinstance(part, NormedNeuron) else part, value.bits)
        if y is None:
            return None
        y = unflattened(y, value.lead)
        return _after_layer(part, y) if isinstance(part, NormedNeuron) else y


def _unpacked(value: Any) -> Any:
    return value.unpacked() if isinstance(value, _Packed) else value


def _takes_bits(part: nn.Module) -> bool:
    """Does this part multiply or pool spikes, unwatched?"""
    if has_hooks(part) or "forward" in part.__dict__:
        return False
    if isinstance(part, MaxPool2d):
        has_plain_windows = pair(part.padding) == (0, 0) and pair(part.dilation) == (1, 1) and not part.ceil_mode
        return type(part) is MaxPool2d and has_plain_windows and not part.return_indices
    if type(part) in (Conv2d, Linear):
        assert isinstance(part, SpikeLayer)
        return part.products != DENSE and geometry_of(part) is not None
    if not isinstance(part, NormedNeuron) or part.products == DENSE or part.norm.training:
        return False
    if type(part).forward is not NormedNeuron.forward:
        return False
    if not isinstance(part.norm, nn.Identity) and getattr(part.norm, "running_mean", None) is None:
        return False
    return is_plain_layer(part.layer) and not any(has_hooks(child) for child in (part.layer, part.norm))


def _fires(part: nn.Module) -> bool:
    """May its output be spikes?"""
    return isinstance(part, Neuron | NormedNeuron | MaxPool2d)


def _pack(out: Any, following: nn.Module) -> Any:
    """The output of a part as bits for the one that follows, where it is spikes and a backend packs them."""
    if not isinstance(out, Tensor) or not is_plain((out,)):
        return out
    lead = 2 if getattr(following, "step_mode", "multi") == "multi" else 1
    kind = "conv2d" if out.dim() == lead + 3 else "linear"
    if out.dim() not in (lead + 1, lead + 3):
        return out
    _, backend = bit_backend(kind, out)
    if backend is None:
        return out
    bits = backend.pack(_folded(out) if lead == 2 else out)
    if bits is None:  # it is not spikes alone
        return out
    return _Packed(bits, tuple(out.shape[:lead]), out)


def _folded(x: Tensor) -> Tensor:
    """`[T * B, ...]`, a view also of channels-last steps."""
    if x.dim() == 5 and x.stride(2) == 1:
        return x.movedim(2, -1).flatten(0, 1).movedim(-1, 1)
    return x.flatten(0, 1)


def _pooled(part: MaxPool2d, value: _Packed) -> _Packed | None:
    kernel, stride = pair(part.kernel_size), pair(part.stride)
    bits = value.bits
    if not bits.is_image or bits.height < kernel[0] or bits.width < kernel[1]:
        return None  # torch refuses it with an error of its own
    return _Packed(bits.max_pool(kernel, stride), value.lead)


def _after_layer(block: NormedNeuron, y: Tensor) -> Tensor:
    """Norm and neuron of a block in eval mode, as its `forward` runs them."""
    if isinstance(block.norm, BatchNorm) and block._is_fused(y, block.norm, block.neuron):
        return block.neuron(y, affine=block._scale_and_shift(y))  # type: ignore[no-any-return]
    is_multi = block.step_mode == "multi"
    normed = fold(block.norm, (y,), {}, type(block).__name__) if is_multi else block.norm(y)
    return block.neuron(normed)  # type: ignore[no-any-return]


def optimize(net: nn.Module) -> nn.Module:
    """A copy of a net for inference, in eval mode and without gradients of parameters; the net itself stays as it is.

    In it every container (`spikecore.nn.Sequential`, `torch.nn.Sequential`) hands spikes on as bits from neurons,
    blocks and max pooling to the convolutions, linear layers, blocks and max pooling behind them. Layers and blocks
    that a net calls in a `forward` of its own, such as those of residual branches, multiply bits too: those that the
    neuron before them has written, or packed ones. All keep their weights in the order of the backend's kernels. Call
    it under `torch.no_grad()`; with gradients, in training mode and within torch.compile the copy runs as any net does.
    Where no backend multiplies bits, nothing changes.

    Args:
        net: any net.

    Returns:
        The copy. Its `state_dict` has the same keys. It forgets the state that the net kept between calls.

    Example:
        >>> import torch
        >>> from spikecore.nn import LIF, Conv2d
        >>> net = Sequential(Conv2d(2, 4, 3), LIF(), Conv2d(4, 4, 3), LIF())
        >>> x = torch.rand(5, 1, 2, 8, 8)
        >>> with torch.no_grad():
        ...     torch.equal(optimize(net)(x), net.eval()(x))
        True
    """
    optimized = copy.deepcopy(net).eval().requires_grad_(False)
    for part in stateful(optimized).values():
        part.forget()
    for module in optimized.modules():
        if isinstance(module, SpikeLayer):
            module.keeps_prepared = True
    return _with_bits(optimized, {})


def _with_bits(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module, in which every container at any depth passes bits; itself another one if it is such a container.

    Args:
        module: changed in place.
        done: what has become of modules before, so that one which is used twice stays one.
    """
    if module in done:
        return done[module]
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = _with_bits(child, done)
    done[module] = module
    is_container = type(module) in (nn.Sequential, Sequential) and "forward" not in module.__dict__
    if is_container and not has_hooks(module):
        done[module] = BitSequential(parts_of(cast(nn.Sequential, module))).eval()
    return done[module]


__all__ = ["BitSequential", "optimize"]
