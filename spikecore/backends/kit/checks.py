"""Checks of sizes, dtypes and devices, which compiled code cannot make itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from spikecore.dynamics import Program, unknown_operators
from spikecore.errors import BackendError
from spikecore.interfaces.backend import BackendCapabilities, Support


def check_support(
    capabilities: BackendCapabilities,
    operators: Collection[str],
    program: Program,
    device: torch.device,
    dtype: torch.dtype,
) -> Support:
    """Whether a backend with these capabilities, that knows these operators, can run a program.

    Args:
        capabilities: of the backend; its devices and dtypes count.
        operators: those that it knows, such as `operations` of its printer.
        program: the program.
        device: of the input.
        dtype: of the input.
    """
    if device.type not in capabilities.devices:
        return Support(False, f"runs on {', '.join(capabilities.devices)}, not on {device.type}")
    if str(dtype).removeprefix("torch.") not in capabilities.dtypes:
        return Support(False, f"takes {', '.join(capabilities.dtypes)}, not {dtype}")
    unknown = unknown_operators(program, operators)
    if unknown:
        noun = "operator" if len(unknown) == 1 else "operators"
        return Support(False, f"does not know the {noun} {', '.join(map(repr, unknown))} of {program.name}")
    return Support(True)


def channels(program: Program, shape: Sequence[int], params: Sequence[Tensor]) -> tuple[int, int]:
    """`(inner, channels)`: lane n belongs to channel n // inner % channels.

    Args:
        program: the program.
        shape: of x, `[T, B, C, ...]`.
        params: the tensor parameters.

    Raises:
        BackendError: a per-channel parameter does not fit axis 2, or one for all lanes is not one number.
    """
    pair = (1, 1)
    for param, value in zip(program.params, params, strict=True):
        size = value.numel()
        if param.per_channel:
            if len(shape) < 3 or shape[2] != size:
                raise BackendError(
                    f"{program.name}.{param.name} has {size} values, x is {tuple(shape)}: axis 2 differs"
                )
            inner = 1
            for length in shape[3:]:
                inner *= length
            pair = (max(inner, 1), max(size, 1))
        elif size != 1:
            raise BackendError(f"{program.name}.{param.name} is one number, got {size}")
    return pair


def check_arguments(
    program: Program,
    lanes: int,
    dtype: torch.dtype,
    device: torch.device,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
) -> None:
    """Refuse states and parameters that do not fit the program and the input.

    Args:
        program: the program.
        lanes: elements of one step of x.
        dtype: of the state.
        device: of x.
        states: the initial states.
        params: the tensor parameters.

    Raises:
        BackendError: a state or parameter has another size, dtype or device than the program wants.
    """
    if len(states) != len(program.states) or len(params) != len(program.params):
        raise BackendError(
            f"{program.name} has {len(program.states)} states and {len(program.params)} tensor parameters, "
            f"got {len(states)} and {len(params)}"
        )
    for value in states:
        if value.numel() != lanes:
            raise BackendError(f"a state of {program.name} has {value.numel()} elements, a step of x has {lanes}")
    for value in (*states, *params):
        if value.dtype != dtype or value.device != device:
            raise BackendError(
                f"{program.name} needs states and parameters as {dtype} on {device}, got {value.dtype} on "
                f"{value.device}"
            )
