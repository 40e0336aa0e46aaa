"""Where the records of quantization live: `module.quantized`, whose tensors are buffers.

So they move with the module, are copied with it and belong to its `state_dict`. `attach` writes a record, `read` reads
it. A fresh net has no records, so its `state_dict` lacks their keys; `prepare(net, state_dict)` makes room for those
that a `state_dict` holds, after which it loads strictly.

    attach(net.fc, QuantizedLayer(values, scale, zero_point, bits=8))
    read(net.fc).dequantize()

    prepare(fresh, state)
    fresh.load_state_dict(state)

Integers stay integers and scales keep their precision, whatever dtype the module is converted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import InputError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.interfaces.quantized import QuantizedLayer, QuantizedNeuron

Record = QuantizedLayer | QuantizedNeuron
NAME = "quantized"
DECAY = "decay_of_"
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_LAYER, _NEURON = "values", "threshold"
"""The buffer that says whether a record in a `state_dict` belongs to a layer or to a neuron."""
_NO_AXIS = -1
"""Stands for None in a buffer of integers: one scale for the whole layer."""


class QuantizedRecord(nn.Module):
    """Holds one record as buffers; numbers are buffers without axes. It computes nothing."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def moved(value: Tensor) -> Tensor:
            result = fn(value)
            return result if result.dtype == value.dtype else value.to(result.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        errors: list[str] = args[-1]  # torch raises what stands in it, after all modules have loaded
        for name, buffer in self.named_buffers(recurse=False):
            given = state_dict.get(prefix + name)
            if isinstance(given, Tensor) and given.dtype != buffer.dtype:
                errors.append(f"{prefix}{name} is {given.dtype}, expected {buffer.dtype}: integers must not be rounded")
                return
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not errors:
            errors += [f"{prefix.rstrip('.')}: {problem}" for problem in _problems(_record(self))]


def attach(module: nn.Module, record: Record) -> None:
    """Put a record on a layer or neuron, in place of one that may be there.

    Args:
        module: a layer with a `weight` for a `QuantizedLayer`, a neuron for a `QuantizedNeuron`.
        record: its tensors are copied, to the module's device.

    Raises:
        InputError: the record does not fit the module, or its numbers do not fit its own bits.
    """
    problems = [*_misfits(module, record), *_problems(record)]
    if problems:
        raise InputError(f"{type(record).__name__} for {type(module).__name__}: {'; '.join(problems)}")
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    device = tensors[0].device if tensors else torch.device("cpu")
    holder = QuantizedRecord()
    for name, value in _buffers(record).items():
        holder.register_buffer(name, value.detach().clone().to(device))
    module.add_module(NAME, holder)


def read(module: nn.Module) -> Record | None:
    """The record on a module, with the tensors themselves; None where there is none."""
    holder = module._modules.get(NAME)
    return _record(holder) if isinstance(holder, QuantizedRecord) else None


def remove(module: nn.Module) -> None:
    """Take a record off a module, if there is one."""
    if isinstance(module._modules.get(NAME), QuantizedRecord):
        del module._modules[NAME]


def records(net: nn.Module) -> dict[str, Record]:
    """Qualified module name → record, of every module of `net` that has one."""
    records: dict[str, Record] = {}
    for name, module in net.named_modules():
        record = read(module)
        if record is not None:
            records[name] = record
    return records


def prepare(net: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Make room on `net` for the records that a `state_dict` holds, so that it loads strictly.

    Records of `net` that the `state_dict` lacks are taken off.

    Args:
        net: of the same architecture as the one that the `state_dict` is of.
        state: from `state_dict()`, or a safetensors file.

    Returns:
        The qualified names of the modules that have a record now.

    Raises:
        InputError: the state holds records of modules that `net` lacks, or that are damaged.
    """
    modules = dict(net.named_modules())
    records: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        path, _, name = key.rpartition(".")
        owner, _, last = path.rpartition(".")
        if last == NAME:
            records.setdefault(owner, {})[name] = value
    if unknown := sorted(set(records) - set(modules)):
        raise InputError(
            f"the state holds quantized records of {', '.join(unknown)}, which {type(net).__name__} lacks: "
            "build the net that it was saved from"
        )
    for name, module in modules.items():
        if name not in records:
            remove(module)
    for name, tensors in records.items():
        holder = QuantizedRecord()
        for key, value in tensors.items():
            holder.register_buffer(key, value.detach().clone())
        try:
            record = _record(holder)
        except KeyError as error:
            raise InputError(f"the quantized record of {name!r} is damaged: it lacks {error}") from error
        attach(modules[name], record)
    return list(records)


def _buffers(record: Record) -> dict[str, Tensor]:
    """A record as tensors by name; what is None in it is left out."""
    if isinstance(record, QuantizedLayer):
        axis = _NO_AXIS if record.axis is None else record.axis
        tensors = {
            _LAYER: record.values,
            "scale": record.scale,
            "zero_point": record.zero_point,
            "bits": torch.tensor(record.bits),
            "signed": torch.tensor(record.signed),
            "axis": torch.tensor(axis),
            "input_scale": torch.tensor(record.input_scale, dtype=torch.float64),
        }
        if record.bias is not None:
            tensors["bias"] = record.bias
        return tensors
    tensors = {
        _NEURON: record.threshold,
        "scale": record.scale,
        "decay_bits": torch.tensor(record.decay_bits),
        "state_bits": torch.tensor(record.state_bits),
    }
    for name, decay in record.decays.items():
        tensors[f"{DECAY}{name}"] = decay
    if record.v_reset is not None:
        tensors["v_reset"] = record.v_reset
    return tensors


def _record(holder: QuantizedRecord) -> Record:
    """The reverse of `_buffers`.

    Raises:
        KeyError: a buffer is missing.
    """
    buffers = dict(holder.named_buffers(recurse=False))
    if _LAYER in buffers:
        axis = int(buffers["axis"])
        return QuantizedLayer(
            values=buffers[_LAYER],
            scale=buffers["scale"],
            zero_point=buffers["zero_point"],
            bits=int(buffers["bits"]),
            signed=bool(buffers["signed"]),
            axis=None if axis < 0 else axis,
            bias=buffers.get("bias"),
            input_scale=float(buffers["input_scale"]),
        )
    decays: dict[str, Tensor] = {}
    for name, value in buffers.items():
        if name.startswith(DECAY):
            decays[name.removeprefix(DECAY)] = value
    return QuantizedNeuron(
        threshold=buffers[_NEURON],
        scale=buffers["scale"],
        decays=decays,
        decay_bits=int(buffers["decay_bits"]),
        state_bits=int(buffers["state_bits"]),
        v_reset=buffers.get("v_reset"),
    )


def _misfits(module: nn.Module, record: Record) -> Iterator[str]:
    """How a record does not fit a module."""
    if isinstance(record, QuantizedLayer):
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            yield "expected a layer with a `weight`; of a block take its `conv` or `linear`, of fold_time its `module`"
            return
        if weight.shape != record.values.shape:
            yield f"values have the shape {tuple(record.values.shape)}, the weight has {tuple(weight.shape)}"
        num_outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if record.bias is not None and num_outputs is not None and record.bias.shape != (num_outputs,):
            yield f"bias has the shape {tuple(record.bias.shape)}, expected ({num_outputs},)"
        return
    if not isinstance(getattr(module, "capabilities", None), NeuronCapabilities):
        yield "expected a neuron; of a block take its `neuron`"
        return
    names = getattr(module, "state_names", None)
    unknown = [name for name in record.decays if names is not None and name not in names]
    if unknown:
        yield f"decays name {', '.join(unknown)}; the neuron's states are {', '.join(names or ()) or 'none'}"


def _problems(record: Record) -> Iterator[str]:
    """What is wrong with the numbers of a record."""
    yield from _scale_problems(record.scale)
    if isinstance(record, QuantizedNeuron):
        yield from _neuron_problems(record)
        return
    if not 1 <= record.bits <= 32:
        yield f"bits must be 1 to 32, got {record.bits}"
        return
    low = -(2 ** (record.bits - 1)) if record.signed else 0
    high = low + 2**record.bits - 1
    kind = f"{'signed' if record.signed else 'unsigned'} {record.bits}-bit"
    yield from _range_problems("values", record.values, low, high, kind)
    yield from _range_problems("zero_point", record.zero_point, low, high, kind)
    if record.bias is not None:
        yield from _range_problems("bias", record.bias, -(2**63), 2**63 - 1, "64-bit")
    if record.zero_point.shape != record.scale.shape:
        yield f"zero_point has the shape {tuple(record.zero_point.shape)}, scale has {tuple(record.scale.shape)}"
    if record.axis is not None and not 0 <= record.axis < record.values.dim():
        yield f"axis must be 0 to {record.values.dim() - 1} or None, got {record.axis}"
        return
    expected = () if record.axis is None else (record.values.shape[record.axis],)
    if tuple(record.scale.shape) != expected:
        yield f"scale has the shape {tuple(record.scale.shape)}, expected {expected} for axis {record.axis}"
    if not 0 < record.input_scale < float("inf"):
        yield f"input_scale must be positive and finite, got {record.input_scale}"


def _neuron_problems(record: QuantizedNeuron) -> Iterator[str]:
    if not 2 <= record.state_bits <= 64:
        yield f"state_bits must be 2 to 64, got {record.state_bits}"
        return
    if not 0 <= record.decay_bits <= 32:
        yield f"decay_bits must be 0 to 32, got {record.decay_bits}"
        return
    high = 2 ** (record.state_bits - 1) - 1
    kind = f"signed {record.state_bits}-bit"
    integers = {"threshold": record.threshold}
    if record.v_reset is not None:
        integers["v_reset"] = record.v_reset
    for name, value in integers.items():
        yield from _range_problems(name, value, -high - 1, high, kind)
    for name, value in record.decays.items():
        yield from _range_problems(f"the decay of {name}", value, 0, 2**record.decay_bits, f"{record.decay_bits}-bit")
    per_channel = {"scale": record.scale, **integers, **record.decays}
    sizes = {name: tuple(value.shape) for name, value in per_channel.items() if value.dim()}
    if len(set(sizes.values())) > 1 or any(len(shape) > 1 for shape in sizes.values()):
        yield f"expected [] or [C] with one C, got {', '.join(f'{name} {shape}' for name, shape in sizes.items())}"


def _scale_problems(scale: Tensor) -> Iterator[str]:
    if not scale.is_floating_point():
        yield f"scale must be floating point, got {scale.dtype}"
    elif not scale.is_meta and not bool(((scale > 0) & scale.isfinite()).all()):
        yield "scale must be positive and finite"


def _range_problems(name: str, value: Tensor, low: int, high: int, kind: str) -> Iterator[str]:
    if value.dtype not in _INTEGERS:
        yield f"{name} must be integers, got {value.dtype}"
    elif value.numel() and not value.is_meta:
        least, most = int(value.min()), int(value.max())
        if least < low or most > high:
            yield f"{name} must be {low} to {high} ({kind}), got {least} to {most}"
