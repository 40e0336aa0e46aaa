"""Weights of others and weights that ship with a model: read without running anything, checked before they are used.

A weights file is safetensors. `spike convert-weights` notes in it what the net is: model, options, input shape, number
of outputs, source. A net made with other options is refused, since its numbers could differ while all shapes fit.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from spikecore.documents import parse_json
from spikecore.errors import CheckpointError, OptionError
from spikecore.files import refuse_special
from spikecore.nn.neuron import Neuron
from spikecore.registry import name_of

NOTE = "spikecore"
"""The key of the note in the metadata of a safetensors file."""
MOST_NOTE_BYTES = 1 << 22
OF_TRAINING = frozenset({"detach_reset", "learnable", "surrogate"})
"""Options of neurons that change gradients only."""
NUM_SHOWN = 20
"""Differences that a message lists."""
_NOTE_TYPES: dict[str, type] = {
    "model": str,
    "options": dict,
    "input_shape": tuple,
    "num_outputs": int,
    "neuron": dict,
    "source": str,
    "source_sha256": str,
}


@dataclass(frozen=True)
class WeightsNote:
    """What a weights file says of itself.

    Args:
        model: registered name.
        options: the fields of the model's `Config`, as JSON holds them.
        input_shape: without T and B.
        num_outputs: size of the output's last axis.
        neuron: name and options of the neuron that the net was made with; another one is allowed, as for fine-tuning,
            with a warning.
        source: where the weights come from.
        source_sha256: of the file that they were converted from.
    """

    model: str
    options: dict[str, Any]
    input_shape: tuple[int, ...]
    num_outputs: int
    neuron: dict[str, Any]
    source: str
    source_sha256: str

    def __post_init__(self) -> None:
        """Check the types, which a file may have wrong.

        Raises:
            TypeError: a field has another type.
        """
        for name, kind in _NOTE_TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"expected {name} to be {kind.__name__}, got {value!r:.80}")
        if not all(isinstance(size, int) for size in self.input_shape):
            raise TypeError(f"expected input_shape to hold whole numbers, got {self.input_shape!r:.80}")

    def to_metadata(self) -> dict[str, str]:
        """For a safetensors file."""
        return {NOTE: json.dumps(dataclasses.asdict(self), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, path: Path) -> WeightsNote | None:
        """What the file says; None where it says nothing.

        Raises:
            CheckpointError: the note is damaged.
        """
        if not metadata or NOTE not in metadata:
            return None
        try:
            values = parse_json(metadata[NOTE], most_bytes=MOST_NOTE_BYTES)
            return cls(**{**values, "input_shape": tuple(values["input_shape"])})
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path}: its note on the net is damaged: {error}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], WeightsNote | None]:
    """The tensors of a safetensors file, or of what `torch.save` wrote; nothing in the file is run.

    Of a checkpoint that holds more (`{"epoch": 3, "state_dict": {...}}`), the one dictionary of tensors in it.

    Returns:
        Name → tensor, on the CPU; and the note, where there is one.

    Raises:
        CheckpointError: there is no such file, it is damaged, holds Python objects, or not one dictionary of tensors.
    """
    try:
        refuse_special(path, follows_link=True)
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head[8:9] == b"{":  # after the length of its header, in eight bytes
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors{_object_in(str(error))}, or is damaged, and Python objects in files are "
            "never run. Save torch.save(net.state_dict(), FILE) where the file comes from"
        ) from error
    except Exception as error:  # torch raises whatever its readers raise
        raise CheckpointError(
            f"{path}: is neither safetensors nor a file of torch.save: {type(error).__name__}: {error}"
        ) from error
    return _tensors_in(content, path), None


def _object_in(reason: str) -> str:
    """` (mymodule.MyNet)`: what torch names in its long advice on how to run the file all the same; "" if nothing."""
    named = re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", reason)
    return f" ({named.group(1)})" if named else ""


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], WeightsNote | None]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it cannot be iterated)
            return tensors, WeightsNote.from_metadata(file.metadata(), path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}") from error


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    if _is_tensors(content):
        return dict(content)
    inside = {}
    if isinstance(content, Mapping):
        inside = {key: value for key, value in content.items() if _is_tensors(value)}
    if len(inside) == 1:
        (tensors,) = inside.values()
        return dict(tensors)
    got = ", ".join(map(repr, inside)) if inside else f"{type(content).__name__} without any"
    raise CheckpointError(f"{path}: expected one dictionary of names and tensors, got {got}: save that one alone")


def _is_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(key, str) and isinstance(part, Tensor) for key, part in value.items())


def check_state(net: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Refuse a `state_dict` that is not that of the net.

    Args:
        net: whose `state_dict` is meant.
        state: the other one.
        what: what it is, for the message.

    Raises:
        CheckpointError: names or shapes differ, integers stand where floating-point numbers belong or the reverse, or
            values are not finite; lists them.
    """
    wanted = net.state_dict()
    missing = [name for name in wanted if name not in state]
    lines = [f"missing     {name} {list(wanted[name].shape)}" for name in missing]
    for name, value in state.items():
        if name not in wanted:
            near = difflib.get_close_matches(name, missing, n=1)
            lines.append(f"unexpected  {name} {list(value.shape)}" + (f" (near {near[0]})" if near else ""))
        elif value.shape != wanted[name].shape:
            lines.append(f"shape       {name}: expected {list(wanted[name].shape)}, got {list(value.shape)}")
        elif value.is_floating_point() != wanted[name].is_floating_point():
            # `load_state_dict` would convert them: the integers of a quantized net would become its weights.
            lines.append(f"dtype       {name}: expected {wanted[name].dtype}, got {value.dtype}")
        elif value.is_floating_point() and not value.isfinite().all():
            lines.append(f"not finite  {name}: {int((~value.isfinite()).sum())} of {value.numel()} values")
    if lines:
        shown = lines[:NUM_SHOWN]
        if len(lines) > NUM_SHOWN:
            shown.append(f"and {len(lines) - NUM_SHOWN} more")
        raise CheckpointError(f"{what} does not fit {type(net).__name__}:\n  " + "\n  ".join(shown))


def load_weights(net: Any, weights: str | Path, name: str = "") -> None:
    """Load weights into a net that was just made; what `create("model", ..., weights=...)` does.

    Args:
        net: a model.
        weights: a name among its `weights()`, or the path of a file.
        name: under which the model was made, for messages.

    Raises:
        OptionError: the model ships no weights of this name.
        CheckpointError: the file is damaged, or of another net: other keys, shapes, model or options.

    Warns:
        UserWarning: the net has another neuron than the one that the weights were trained with.
    """
    path = weights_file(net, weights, name or type(net).__name__)
    state, note = read_tensors(path)
    if note is not None:
        _check_note(net, note, path)
    check_state(net, state, str(path))
    net.load_state_dict(state)
    if note is not None:
        _warn_of_another_neuron(net, note, path)


def weights_file(net: Any, weights: str | Path, name: str) -> Path:
    """The file that holds the weights.

    Args:
        net: a model.
        weights: a name among its `weights()`, or the path of a file.
        name: under which the model was made, for messages.

    Raises:
        OptionError: the model ships no weights of this name.
    """
    if isinstance(weights, Path):
        return weights
    shipped = dict(net.weights()) if hasattr(net, "weights") else {}
    if weights in shipped:
        return Path(shipped[weights])
    near = difflib.get_close_matches(str(weights), shipped, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    known = f"it ships {', '.join(shipped)}" if shipped else "it ships none"
    raise OptionError(
        f"model {name!r} has no weights {weights!r}{meant} ({known}; a file is given as a path: weights=Path(...))"
    )


def _check_note(net: Any, note: WeightsNote, path: Path) -> None:
    model = name_of(net)
    if note.model != model:
        raise CheckpointError(f"{path}: holds the weights of model {note.model!r}, this net is {model!r}")
    options = plain_options(net.config)
    # An option that the file does not know came with a later version; its default is what the net did before.
    noted = {**_defaults(net.config), **note.options}
    differing = []
    for key in dict.fromkeys((*options, *noted)):
        if key not in options:
            differing.append(f"{key}: {noted[key]!r} there, no such option here")
        elif key not in noted:
            differing.append(f"{key}: unknown there, {options[key]!r} here")
        elif noted[key] != options[key]:
            differing.append(f"{key}: {noted[key]!r} there, {options[key]!r} here")
    if differing:
        raise CheckpointError(
            f"{path}: its net was made with other options ({'; '.join(differing)}), so equal weights do not make an "
            "equal net: make it with the same options, or load the file yourself with net.load_state_dict"
        )


def _warn_of_another_neuron(net: nn.Module, note: WeightsNote, path: Path) -> None:
    neuron = next((part for part in net.modules() if isinstance(part, Neuron)), None)
    if neuron is None or not note.neuron:
        return
    here = {"name": name_of(neuron), **plain_options(neuron.config)}
    there = {**_defaults(neuron.config), **note.neuron} if note.neuron.get("name") == here["name"] else note.neuron
    differing = [key for key in here if key not in OF_TRAINING and key in there and there[key] != here[key]]
    if differing:
        changes = ", ".join(f"{key} {there[key]!r} there and {here[key]!r} here" for key in differing)
        warnings.warn(
            f"{path}: its net was trained with another neuron ({changes}): it may compute "
            "something else until it is trained further",
            stacklevel=3,
        )


def plain_options(config: Any) -> dict[str, Any]:
    """The fields of a `Config` as JSON gives them back."""
    return _plain({field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


def _defaults(config: Any) -> dict[str, Any]:
    """The defaults of those fields that have one, likewise."""
    values = {}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return _plain(values)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values, default=_as_json))
    return plain


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "config"):
        return {"name": name_of(value), **plain_options(value.config)}
    return str(value)
