"""Bases of nets, which refuse sequences for plain layers by name: `Model` for registered models, `Sequential`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError, OptionError, ShapeError, SpikeError
from spikecore.interfaces.component import Configurable, make_config
from spikecore.interfaces.model import ModelCapabilities
from spikecore.nn.guard import guarded
from spikecore.registry import name_of


class Sequential(nn.Sequential):
    """`torch.nn.Sequential` with the same `state_dict` keys.

    Raises:
        ShapeError: a plain layer was fed a sequence; names the layer and `fold_time(module)`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return guarded(self, super().__call__, *args, **kwargs)


def parts_of(chain: nn.Sequential) -> dict[str, nn.Module]:
    """Name → part of a chain, in the order in which they run.

    A part that stands at two places is there twice; `named_children` would leave out all its places but the first.
    """
    return dict(zip(chain._modules, chain, strict=True))


class Model(Configurable, nn.Module):
    """Base of models: checks the options and the input shape; a subclass adds its layers and `forward`.

    Args:
        make_neuron: called once per neuron layer; gives a new neuron each time.
        input_shape: of one sample, without T and B.
        num_outputs: size of the output's last axis.
        options: the fields of `Config`.

    Raises:
        OptionError: a wrong option, or a `make_neuron` that is no function.
        ShapeError: `input_shape` does not suit `capabilities`; or, in a call, a plain layer was fed a sequence, or a
            layer fails on an input of another shape or type than the net was made for.
    """

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities()
    weight_sources: ClassVar[tuple[str, ...]] = ()
    extra_keywords = ("make_neuron", "input_shape", "num_outputs")

    @dataclass(frozen=True)
    class Config:
        """No options."""

    config: Any

    def __init__(
        self, make_neuron: Callable[[], nn.Module], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        nn.Module.__init__(self)
        self.config = make_config(type(self), options)
        if isinstance(make_neuron, nn.Module) or not callable(make_neuron):
            got = type(make_neuron).__name__
            raise OptionError(
                f"{type(self).__name__}: make_neuron must be a function that makes a neuron, called for each layer, "
                f"such as lambda: nn.LIF(); got {got}"
            )
        name, rank, smallest = type(self).__name__, self.capabilities.input_rank, self.smallest_input()
        shape = tuple(input_shape)
        if not all(_is_size(size) for size in shape) or (rank is not None and len(shape) != rank):
            wanted = "sizes of at least 1" if rank is None else f"{rank} sizes of at least 1"
            raise ShapeError(f"{name} takes an input shape (without T and B) of {wanted}, got {shape}")
        if smallest and min(shape[1:], default=0) < smallest:
            raise ShapeError(f"{name} takes [C, H, W] with H, W >= {smallest}, got {shape}: resize the input")
        if not _is_size(num_outputs):
            raise ShapeError(f"{name} needs num_outputs >= 1, a whole number, got {num_outputs!r}")
        self.input_shape = shape

    def smallest_input(self) -> int:
        """Smallest height and width of the input with the net's options; 0 when any.

        `capabilities` name it for the default options. A model with options that allow other sizes overrides this.
        """
        return self.capabilities.min_input_size

    def import_weights(self, source: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The `state_dict` of this net from the tensors of another one; see `interfaces.model.WeightedModel`.

        Raises:
            ConversionError: here always: a subclass that names `weight_sources` says how.
        """
        raise ConversionError(f"{type(self).__name__} reads no weights of {source!r}, nor of anything else")

    @classmethod
    def weights(cls) -> Mapping[str, Path]:
        """Name → file of the weights that ship with the model: `weights/MODEL/NAME.safetensors` in its package.

        MODEL is the registered name.
        """
        package = sys.modules.get(cls.__module__.partition(".")[0])
        file = getattr(package, "__file__", None)
        if file is None:  # of an interactive session, or of a file that was run by its path
            return {}
        folder = Path(file).parent / "weights" / name_of(cls)
        return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return guarded(self, super().__call__, *args, **kwargs)
        except RuntimeError as error:
            message = self._unlike(args[0], error) if args and isinstance(args[0], Tensor) else None
            if message is None or isinstance(error, SpikeError | torch.OutOfMemoryError):
                raise
            raise ShapeError(message) from error

    def _unlike(self, x: Tensor, error: RuntimeError) -> str | None:
        """What to say of an input that the net was not made for: other axes, channels, type, size; None if it was.

        Args:
            x: the input.
            error: which it caused.
        """
        rank = len(self.input_shape)
        wanted = f"{type(self).__name__} was made for samples of shape {self.input_shape}"
        if x.dim() not in (rank + 1, rank + 2):
            axes = f"{rank + 2} axes, one fewer in single-step mode"
            return f"{wanted} and takes [T, B, ...] of {axes}; got {tuple(x.shape)}"
        got = f"{wanted}; got samples of shape {tuple(x.shape[-rank:])} in {tuple(x.shape)}"
        if x.shape[-rank] != self.input_shape[0]:
            return got
        own = next((value.dtype for value in self.parameters() if value.is_floating_point()), x.dtype)
        if x.dtype != own and not torch.is_autocast_enabled(x.device.type):
            return f"{type(self).__name__} has weights of {own}, got an input of {x.dtype}: convert it, x.to({own})"
        if tuple(x.shape[-rank:]) != self.input_shape:
            # Many nets take other sizes; the layer that does not says why.
            return f"{got}, which a layer does not take: {str(error).splitlines()[0]}"
        return None


def _is_size(value: object) -> bool:
    return type(value) is not bool and isinstance(value, Integral) and int(value) >= 1
