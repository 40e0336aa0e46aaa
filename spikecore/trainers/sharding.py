"""What a trainer needs beside `context.fully_shard`: norms, and the state of an optimizer, of tensors in parts.

The parameters of a net that is shared out among processes are torch's `DTensor`s, and so are their gradients and what
an optimizer keeps for them. Here they become whole, so that a checkpoint has the same form as that of one process, and
come apart again. Where a function reads parts of other processes, all of them must call it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def is_part(tensor: object) -> bool:
    """Whether it is divided between the processes: a `DTensor`, whose module takes long to import."""
    return isinstance(tensor, Tensor) and hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is divided, without gradient; any other one as it is. All processes must call it."""
    full: Tensor = tensor.full_tensor() if is_part(tensor) else tensor  # type: ignore[attr-defined]
    return full.detach()


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Norm of all elements of whole and divided tensors, as a whole one. All processes must call it."""
    divided: list[Tensor] = []
    complete: list[Tensor] = []
    for tensor in tensors:
        if is_part(tensor):
            divided.append(tensor)
        else:
            complete.append(tensor)
    # Each kind by itself: torch does not take both in one call.
    norms = [whole(nn.utils.get_total_norm(kind)) for kind in (divided, complete) if kind]
    if not norms:
        return torch.zeros(())
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def settle(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer take groups with whole and divided parameters: one after the other, not all in one call."""
    for group in optimizer.param_groups:
        if "foreach" in group and _is_mixed(group["params"]):
            group["foreach"] = False


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()` with whole tensors, as in one process. All processes must call it."""
    plain = optimizer.state_dict()
    groups = [dict(group) for group in plain["param_groups"]]
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        if "foreach" in group and _is_mixed(own["params"]):
            group["foreach"] = None  # see `settle`
    state: dict[int, dict[str, Any]] = {}
    for number, values in plain["state"].items():
        state[number] = {name: whole(value) if is_part(value) else value for name, value in values.items()}
    return {**plain, "state": state, "param_groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what `optimizer_state` gave, in any number of processes; each takes its parts of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(map(is_part, parameters)):
        optimizer.load_state_dict(state)
        return
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parts: dict[Any, Any] = {}
    for number, parameter in zip(numbers, parameters, strict=True):
        if number in state["state"]:
            take = _part_taker(parameter)
            parts[number] = {name: take(value) for name, value in state["state"][number].items()}
    optimizer.load_state_dict({**state, "state": parts})
    settle(optimizer)


def _part_taker(parameter: Any) -> Callable[[Any], Any]:
    """Of a value of the parameter's shape, this process's part."""
    if not is_part(parameter):
        return lambda value: value
    from torch.distributed.tensor import distribute_tensor

    def take(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value  # such as the number of steps
        value = value.to(parameter.device)
        # All processes have read the same file, so nothing is sent.
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)

    return take


def _is_mixed(parameters: Iterable[Tensor]) -> bool:
    return len({is_part(parameter) for parameter in parameters}) > 1
