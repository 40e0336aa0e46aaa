"""The C texts of this package, each put together to one file, so that its hash says all about it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from spikecore.dynamics import Program
from spikecore_cpu_backend.call import MAX_TENSORS, header
from spikecore_cpu_backend.norm_call import norm_header
from spikecore_cpu_backend.printer import print_program

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


@cache
def _text(name: str) -> str:
    """A file of `c/`, with our own headers in the place of their includes; `call.h` and `norm_call.h` are printed."""
    if name == "call.h":
        return header()
    if name == "norm_call.h":
        return norm_header()
    text = files("spikecore_cpu_backend").joinpath("c", name).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: _text(match[1]), text)


def runtime_source() -> str:
    """Thread pool and driver."""
    return _text("pool.c") + _text("driver.c")


def products_source() -> str:
    """Kernels of spike products."""
    return _text("products.c")


def kernel_source(program: Program, is_double: bool, normed: str = "") -> str:
    """The rows of one program; `normed` as of `print_program`."""
    bits, real = (64, "double") if is_double else (32, "float")
    head = (
        f"#include <stddef.h>\n#include <stdint.h>\n#define MAX_TENSORS {MAX_TENSORS}\n#define real {real}\n"
        f"#define NAME(name) name##_{bits}\n"
    )
    parts = [
        head,
        _text("lanes.h"),
        _text("rows.h"),
        _text(f"math_{bits}.h"),
        print_program(program, is_double, normed),
    ]
    return "\n".join(parts)
