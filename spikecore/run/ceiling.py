"""A ceiling on the memory of a net that somebody else's configuration describes, and whose weights are loaded anyway.

A configuration of a hundred bytes can ask for any number of neurons. The weights that were saved with it tell how large
the net was, so a net that takes far more is not built.
"""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from spikecore.errors import CheckpointError
from spikecore.torch_internals import DispatchMode, arguments_of, makes_memory, operator_name

BASE_BYTES, MOST_RATIO = 1 << 28, 32
"""A net may take so many bytes while it is built, and so many times its weights besides: weights of two bits become
floats, and what draws them needs room."""
LEAST_BYTES = 1 << 12
"""What a tensor counts at least, for the objects around it: a net of a million layers has small ones."""


def ceiling(loaded_bytes: int | None) -> AbstractContextManager[object]:
    """Inside, tensors of more than `BASE_BYTES` and `MOST_RATIO` times these bytes in all are refused.

    Args:
        loaded_bytes: of the weights that are loaded into the net; None for no ceiling.

    Raises:
        CheckpointError: inside, before the memory is taken.
    """
    return nullcontext() if loaded_bytes is None else _Ceiling(loaded_bytes)


class _Ceiling(DispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made, whether they live on or not."""

    def __init__(self, loaded_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._loaded_bytes = loaded_bytes
        self._most_bytes = BASE_BYTES + MOST_RATIO * loaded_bytes
        self._left = self._most_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        named = arguments_of(func, args, kwargs)
        if is_counted := _is_factory(func, named):
            self._take(_bytes_of_new(func, args, kwargs, named))
        made = func(*args, **kwargs)
        if not is_counted and makes_memory(func):
            for value in made if isinstance(made, tuple | list) else (made,):
                if isinstance(value, Tensor):
                    self._take(value.numel() * value.itemsize)
        return made

    def _take(self, num_bytes: int) -> None:
        self._left -= max(num_bytes, LEAST_BYTES)
        if self._left < 0:
            raise CheckpointError(
                f"this configuration describes a net that takes more than {self._most_bytes} bytes, and the weights "
                f"that were saved with it have {self._loaded_bytes}: they are of another net, or the configuration "
                "was made to fill the memory. Nothing was loaded; get the directory again from where it came"
            )


def _is_factory(func: Any, named: dict[str, Any]) -> bool:
    """Whether the size of what it makes is a number that it is given, and not that of a tensor."""
    if operator_name(func).startswith("aten::new_"):
        return True
    values = [item for value in named.values() for item in (value if isinstance(value, tuple | list) else (value,))]
    return not any(isinstance(value, Tensor) for value in values)


def _bytes_of_new(func: Any, args: Any, kwargs: dict[str, Any], named: dict[str, Any]) -> int:
    """Of what a factory makes; it is not called."""
    if (size := named.get("size")) is not None:
        return int(math.prod(size) * _dtype_of(named).itemsize)
    if "device" not in named:
        return 0
    options = {**kwargs, "device": torch.device("meta")}  # without memory
    if "generator" in options:
        options["generator"] = None  # the one given is of another device
    try:
        made = func(*args, **options)
    except (RuntimeError, NotImplementedError) as error:
        # Of a size that no number holds, or an operator that needs a device.
        return sys.maxsize if "overflow" in str(error) else 0
    return made.numel() * made.itemsize if isinstance(made, Tensor) else 0


def _dtype_of(named: dict[str, Any]) -> torch.dtype:
    dtype = named.get("dtype")
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is not None:  # a default of the schema, written as a number: `randint` makes int64
        return torch.int64
    return named["self"].dtype if "self" in named else torch.get_default_dtype()
