"""How far the integers of quantized layers are from the weights that the net computes with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from spikecore.interfaces.quantized import QuantizedLayer
from spikecore.nn import quantized


@dataclass(frozen=True)
class QuantizationError:
    """One layer.

    Args:
        layer: its name in the net.
        bits: width of its integers.
        max_error: largest |weight - integer · scale|.
        mean_error: mean of the same.
        max_weight: largest |weight|, to compare with.
    """

    layer: str
    bits: int
    max_error: float
    mean_error: float
    max_weight: float


def quantization_errors(net: nn.Module) -> tuple[QuantizationError, ...]:
    """The error of every layer of a net that has a record of quantization, in the net's order.

    Args:
        net: as a converter or a trainer left it.

    Example:
        >>> import torch
        >>> from spikecore.interfaces import QuantizedLayer
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False))
        >>> _ = nn.init.constant_(net[0].weight, 0.7)
        >>> one, no = torch.ones(1, 1, dtype=torch.int32), torch.tensor(0, dtype=torch.int32)
        >>> quantized.attach(net[0], QuantizedLayer(one, torch.tensor(0.5), no, bits=8))
        >>> round(quantization_errors(net)[0].max_error, 3)
        0.2
    """
    errors: list[QuantizationError] = []
    for name, module in net.named_modules():
        record = quantized.read(module)
        weight = getattr(module, "weight", None)
        if not isinstance(record, QuantizedLayer) or not isinstance(weight, Tensor) or not weight.numel():
            continue
        exact = weight.detach().double()
        distance = (exact - record.dequantize().double()).abs()
        numbers = (float(distance.max()), float(distance.mean()), float(exact.abs().max()))
        errors.append(QuantizationError(name or "net", record.bits, *numbers))
    return tuple(errors)
