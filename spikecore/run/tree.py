"""Nested state as JSON and named tensors: what a checkpoint can hold without pickle.

Allowed: None, booleans, numbers, strings, lists, tuples, dicts, tensors. Everything comes back as it was, bit for bit;
tensors come back on the CPU.

    {"epoch": 3, "m": tensor}   ->   {"epoch": 3, "m": {"$tensor": "m"}},  {"m": tensor}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from spikecore.documents import parse_json
from spikecore.errors import CheckpointError, ContractError
from spikecore.files import refuse_special, write_file

MOST_TREE_BYTES = 1 << 28
TENSOR, TUPLE, ITEMS, FLOAT = "$tensor", "$tuple", "$items", "$float"


def flatten(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """`(JSON data, name → tensor)`; tensors are contiguous, on the CPU, and share no memory with each other.

    Raises:
        ContractError: something in `value` is of another type.
    """
    tensors: dict[str, Tensor] = {}
    return _flat(value, "", tensors, set()), tensors


def restore(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `flatten` was given.

    Raises:
        CheckpointError: a tensor is missing.
    """
    if isinstance(data, list):
        return [restore(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        ((key, inner),) = data.items()
        if key == TENSOR:
            if inner not in tensors:
                raise CheckpointError(f"the tensor {inner!r} is missing")
            return tensors[inner]
        if key == TUPLE:
            return tuple(restore(item, tensors) for item in inner)
        if key == ITEMS:
            return {restore(name, tensors): restore(item, tensors) for name, item in inner}
        if key == FLOAT:
            return float(inner)
    return {key: restore(item, tensors) for key, item in data.items()}


def write_tree(path: Path, tree: dict[str, Any]) -> None:
    """Write a tree as one safetensors file: its tensors, and the rest as JSON in the header.

    Raises:
        ContractError: something in it is of another type.
        OSError: the disk refused; the old file is untouched.
    """
    data, tensors = flatten(tree)
    write_file(path, save_tensors(tensors, {"tree": json.dumps(data)}))


def read_tree(path: Path) -> dict[str, Any]:
    """What `write_tree` was given; raises whatever a damaged file leads to."""
    refuse_special(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        tree: dict[str, Any] = restore(parse_json(file.metadata()["tree"], most_bytes=MOST_TREE_BYTES), tensors)
    return tree


def _flat(value: Any, path: str, tensors: dict[str, Tensor], seen: set[int]) -> Any:
    if isinstance(value, Tensor):
        return {TENSOR: _keep(value, path, tensors, seen)}
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {FLOAT: str(float(value))}
    if isinstance(value, list | tuple):
        items = [_flat(item, _join(path, index), tensors, seen) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {TUPLE: items}
    if isinstance(value, Mapping):
        pairs = [(key, _flat(item, _join(path, key), tensors, seen)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {ITEMS: [[_flat(key, path, tensors, seen), item] for key, item in pairs]}
    raise ContractError(
        f"state at {path or 'its top'!r} is of type {type(value).__name__}: a checkpoint holds tensors, numbers, "
        "strings, booleans, None, lists, tuples and dicts of these; convert it in state_dict()"
    )


def _keep(tensor: Tensor, path: str, tensors: dict[str, Tensor], seen: set[int]) -> str:
    if tensor.layout != torch.strided:
        raise ContractError(f"the tensor at {path!r} has layout {tensor.layout}: call .to_dense() in state_dict()")
    plain = tensor.detach().cpu().contiguous()
    if plain.untyped_storage().data_ptr() in seen:
        plain = plain.clone()  # safetensors stores each tensor by itself
    seen.add(plain.untyped_storage().data_ptr())
    name, number = path or "value", 2
    while name in tensors:
        name, number = f"{path}#{number}", number + 1
    tensors[name] = plain
    return name


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
