"""Convolution or linear layer → batch norm → neuron, as one block: the place where a backend may fuse the norm.

    y   = layer(x)                                   time folded into the batch
    out = neuron(y * scale + shift)                  scale = γ / sqrt(var + eps),  shift = β - mean * scale

In training mode mean and var are those of y over time, batch and space; in eval mode the running ones. In eval mode, on
a backend with `capabilities.affine_neuron`, the neuron gets y, and scale and shift as two more learnable parameters per
channel of its own program, so that the normed sequence never goes through memory. In training mode a backend with
`capabilities.norm_neuron` takes the statistics, norms and runs the neuron in one call. Elsewhere layer, norm and neuron
run one by one. `spikecore.explain` says which, and why.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from spikecore.backends.plain import is_plain
from spikecore.backends.selection import REFERENCE, Choice
from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.interfaces import ProductKind
from spikecore.nn.batch_statistics import BatchStatistics
from spikecore.nn.half import HALF
from spikecore.nn.layers.fold import FoldsTime, fold
from spikecore.nn.layers.once import repeated_step
from spikecore.nn.layers.sync_norm import is_connected, is_synchronised
from spikecore.nn.neuron import Neuron
from spikecore.nn.products import SpikeLayer, is_plain_layer
from spikecore.nn.running_statistics import uses_batch_statistics
from spikecore.nn.state import stateful
from spikecore.torch_internals import BatchNorm, has_hooks

Block = TypeVar("Block", bound="NormedNeuron")
PRODUCTS: dict[type[nn.Module], ProductKind] = {nn.Conv2d: "conv2d", nn.Linear: "linear"}
"""Layers that backends may multiply by events."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class NormedNeuron(SpikeLayer):
    """What `ConvBNNeuron` and `LinearBNNeuron` share; `layer` is their first part."""

    layer_types: ClassVar[tuple[type[nn.Module], ...]]
    layer_name: ClassVar[str]
    """The attribute that holds the layer, with which its keys in `state_dict` begin."""
    norm: nn.Module
    neuron: nn.Module

    def __init__(self, layer: nn.Module, norm: nn.Module, neuron: nn.Module, **products: Any) -> None:
        super().__init__(**products)
        name, allowed = type(self).__name__, [kind.__name__ for kind in self.layer_types]
        for part in (layer, norm):
            if isinstance(part, FoldsTime):
                raise OptionError(
                    f"{name} folds time itself: give it torch.nn.{type(part).__name__}, not spikecore.nn's"
                )
        if not isinstance(layer, self.layer_types):
            raise OptionError(f"{name} takes one of {', '.join(allowed)} of torch.nn, got {type(layer).__name__}")
        if not isinstance(norm, BatchNorm | nn.Identity):
            raise OptionError(f"{name} takes a batch norm of torch.nn, got {type(norm).__name__}")
        if isinstance(norm, BatchNorm) and norm.num_features != self.num_channels(layer):
            raise OptionError(
                f"{name}: the layer gives {self.num_channels(layer)} channels, the norm takes {norm.num_features}"
            )
        if not hasattr(neuron, "step_mode"):
            raise OptionError(f"{name} takes a neuron, got {type(neuron).__name__}")
        self.add_module(self.layer_name, layer)
        self.norm, self.neuron = norm, neuron

    @staticmethod
    def num_channels(layer: Any) -> int:
        """The number of channels of the layer's output."""
        raise NotImplementedError

    @staticmethod
    def rank(layer: Any) -> int:
        """Number of axes of a single-step input `[B, C, ...]`."""
        raise NotImplementedError

    @staticmethod
    def scaled_weight(layer: Any, scale: Tensor) -> Tensor:
        """The weight that gives `scale` times the layer's output, per channel."""
        raise NotImplementedError

    @property
    def layer(self) -> nn.Module:
        """The convolution or linear layer."""
        # get_submodule looks for dots first; small calls ask three times.
        layer: Any = self._modules[self.layer_name]
        return cast(nn.Module, layer)

    @property
    def step_mode(self) -> str:
        """The neuron's."""
        return str(self.neuron.step_mode)

    @step_mode.setter
    def step_mode(self, step_mode: str) -> None:
        setattr(self.neuron, "step_mode", step_mode)  # noqa: B010  (nn.Module's __setattr__ is typed for tensors)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, ...]` or `[B, C, ...]` by `step_mode` → the neuron's output.

        Raises:
            ShapeError: the input's rank does not suit the step mode.
        """
        layer, norm, neuron = self.layer, self.norm, self.neuron  # looked up once, which small calls notice
        is_multi = neuron.step_mode == "multi"
        rank = self.rank(layer) + is_multi
        if x.dim() != rank:
            form = "[T, B, C, ...]" if is_multi else "[B, C, ...]"
            raise ShapeError(
                f"{type(self).__name__} in step_mode {self.step_mode!r} takes {form} with {rank} axes, got "
                f"{tuple(x.shape)}: check set_step_mode(net, ...) and the layer's number of dimensions"
            )
        name = type(self).__name__
        y: Tensor
        y = fold(self._run_layer, (x,), {}, name, layer) if is_multi else self._run_layer(x)
        if not self._is_fused(y, norm, neuron):
            normed = fold(norm, (y,), {}, name, norm) if is_multi else norm(y)
            return neuron(normed)  # type: ignore[no-any-return]
        if not uses_batch_statistics(norm):
            return neuron(y, affine=self._scale_and_shift(y))  # type: ignore[no-any-return]
        statistics = BatchStatistics(norm, is_multi, name)
        statistics.check(y)
        return neuron(y, norm=statistics)  # type: ignore[no-any-return]

    def _run_layer(self, x: Tensor) -> Tensor:
        layer = self.layer
        # What is declined was plain when it was; asking that first is quicker.
        kind = PRODUCTS.get(type(layer))
        if kind is None or self.declines(kind, layer, x) or not is_plain_layer(layer) or has_hooks(layer):
            return layer(x)  # type: ignore[no-any-return]
        return self.multiply(layer, x)

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """The backend that runs norm and neuron as one, for y of this device and dtype; `torch` if none, and why."""
        obstacle = _obstacle(self.norm, self.neuron)
        if obstacle or not isinstance(self.neuron, Neuron):
            return Choice(REFERENCE, obstacle)
        if uses_batch_statistics(self.norm):
            return self.neuron.choose_norm_backend(device, dtype)
        return self.neuron.choose_backend(device, dtype, affine=True)

    def _is_fused(self, y: Tensor, norm: nn.Module, neuron: nn.Module) -> bool:
        # Without a step, the program of norm and neuron has no gradient for the norm; torch's norm gives it zeros.
        if _obstacle(norm, neuron) or not isinstance(neuron, Neuron) or not y.shape[0]:
            return False
        if not uses_batch_statistics(norm):
            backend, _ = neuron._choice(y.device, y.dtype, affine=True)
            return backend != REFERENCE
        # A compiler, a transform or a mode sees norm and neuron apart; torch refuses too few values by itself.
        if not is_plain((y,)) or y.numel() < 2 * self.num_channels(self.layer):
            return False
        if neuron.step_mode == "single":
            return neuron.runs_norm(y[None])
        return repeated_step(y) is None and neuron.runs_norm(y)  # of a step that is repeated, the norm needs one only

    def _scale_and_shift(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the norm does in eval mode, as scale and shift per channel."""
        norm: Any = self.norm
        dtype = torch.float32 if y.dtype in HALF else y.dtype
        return _affine(norm, norm.running_mean, norm.running_var, dtype)

    def fold(self: Block) -> Block:
        """The same block for inference, with the norm in the weights of the layer: `norm` is then the identity.

        Nothing is shared with this block; its kept state is not taken along.

        Raises:
            StateError: the block is in training mode, or its norm has no running statistics.
        """
        name = type(self).__name__
        if isinstance(self.norm, nn.Identity):
            return _forgetful(copy.deepcopy(self))
        if self.training:
            raise StateError(f"{name}.fold() needs the statistics of eval mode, the block is training: call .eval()")
        if self.norm.running_mean is None:
            raise StateError(f"{name}.fold() needs a norm with running statistics: track_running_stats=True")
        layer: Any = copy.deepcopy(self.layer)
        norm: Any = self.norm
        with torch.no_grad():
            scale, shift = _affine(norm, norm.running_mean, norm.running_var, layer.weight.dtype)
            bias = shift if layer.bias is None else layer.bias * scale + shift
            layer.weight, layer.bias = nn.Parameter(self.scaled_weight(layer, scale)), nn.Parameter(bias)
        block = type(self)(
            layer, nn.Identity(), copy.deepcopy(self.neuron), products=self.products, half_gradient=self.half_gradient
        )
        return _forgetful(block.eval())


def _obstacle(norm: nn.Module, neuron: nn.Module) -> str:
    """Why no backend can run norm and neuron as one; "" if one may."""
    if not isinstance(norm, BatchNorm):
        return "there is no norm"
    if not (isinstance(neuron, Neuron) and type(neuron).forward is Neuron.forward):
        return f"{type(neuron).__name__} does more than its step in the neuron language"
    if is_synchronised(norm) and norm.training and is_connected():
        return "the norm takes its statistics from all processes"
    if type(norm).forward not in (BatchNorm.forward, nn.SyncBatchNorm.forward):
        return f"{type(norm).__name__} has a forward of its own"
    return "a hook watches what passes between norm and neuron" if has_hooks(norm) or has_hooks(neuron) else ""


def _forgetful(block: Block) -> Block:
    for part in stateful(block).values():
        part.forget()
    return block


def _affine(norm: Any, mean: Tensor, var: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`(scale, shift)`, so that the norm is y * scale + shift."""
    scale = torch.rsqrt(var.to(dtype) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.to(dtype)
    shift = -mean.to(dtype) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.to(dtype)
    return scale, shift


class ConvBNNeuron(NormedNeuron):
    """Convolution → batch norm → neuron, over `[T, B, C, ...]`.

    The parts are torch's own; `state_dict` keys begin with `conv.`, `norm.` and `neuron.`. In training mode the
    statistics are taken over time and batch together (over the batch alone in single-step mode).

    Args:
        conv: `torch.nn.Conv1d` to `Conv3d` or `ConvTranspose1d` to `ConvTranspose3d`.
        norm: the batch norm of as many dimensions; after `fold` the identity.
        neuron: a neuron of any backend; the block's `step_mode` is the neuron's.
        products, half_gradient: how the convolution multiplies, as of `Conv2d`.

    Raises:
        OptionError: a part of another type, or channels that do not match.

    Example:
        >>> from spikecore.nn import LIF
        >>> block = ConvBNNeuron(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), LIF())
        >>> block(torch.zeros(4, 2, 3, 16, 16)).shape
        torch.Size([4, 2, 8, 14, 14])
        >>> list(block.eval().fold().state_dict())
        ['conv.weight', 'conv.bias']
    """

    layer_types = CONVOLUTIONS
    layer_name = "conv"

    def __init__(self, conv: nn.Module, norm: nn.Module, neuron: nn.Module, **products: Any) -> None:
        super().__init__(conv, norm, neuron, **products)

    @staticmethod
    def num_channels(layer: Any) -> int:
        """The number of channels of the layer's output."""
        return int(layer.out_channels)

    @staticmethod
    def rank(layer: Any) -> int:
        """Number of axes of a single-step input `[B, C, ...]`."""
        return 2 + len(layer.kernel_size)

    @staticmethod
    def scaled_weight(layer: Any, scale: Tensor) -> Tensor:
        """The weight that gives `scale` times the layer's output, per channel."""
        weight: Tensor = layer.weight
        ones = [1] * len(layer.kernel_size)
        if not layer.transposed:
            return weight * scale.reshape(-1, 1, *ones)
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]) * scale.reshape(layer.groups, 1, -1, *ones)
        return grouped.flatten(0, 1)


class LinearBNNeuron(NormedNeuron):
    """Linear layer → batch norm → neuron, over `[T, B, C]`; otherwise as `ConvBNNeuron`.

    Args:
        linear: `torch.nn.Linear`.
        norm: `torch.nn.BatchNorm1d`; after `fold` the identity.
        neuron: a neuron of any backend; the block's `step_mode` is the neuron's.
        products, half_gradient: how the linear layer multiplies, as of `Linear`.

    Raises:
        OptionError: a part of another type, or sizes that do not match.

    Example:
        >>> from spikecore.nn import LIF
        >>> block = LinearBNNeuron(nn.Linear(5, 3), nn.BatchNorm1d(3), LIF())
        >>> block(torch.zeros(4, 2, 5)).shape
        torch.Size([4, 2, 3])
    """

    layer_types = (nn.Linear,)
    layer_name = "linear"

    def __init__(self, linear: nn.Module, norm: nn.Module, neuron: nn.Module, **products: Any) -> None:
        super().__init__(linear, norm, neuron, **products)

    @staticmethod
    def num_channels(layer: Any) -> int:
        """The number of channels of the layer's output."""
        return int(layer.out_features)

    @staticmethod
    def rank(layer: Any) -> int:
        """Number of axes of a single-step input `[B, C]`."""
        return 2

    @staticmethod
    def scaled_weight(layer: Any, scale: Tensor) -> Tensor:
        """The weight that gives `scale` times the layer's output, per channel."""
        weight: Tensor = layer.weight
        return weight * scale.unsqueeze(1)
