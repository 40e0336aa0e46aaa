"""The text of kernels in Triton. The lanes of a block are the elements of its vectors."""

from __future__ import annotations

from spikecore.backends.kit import (
    ALIGNMENT,
    INTEGERS,
    BackwardPlan,
    ForwardPlan,
    KernelText,
    arguments,
    integer_arguments,
    is_distance,
    pointer,
)
from spikecore.dynamics import Graph, Program
from spikecore_triton_backend.printer import NUMBER, TritonPrinter, multiply_by_powers

KERNEL = "kernel"


def print_kernel(
    program: Program,
    plan: ForwardPlan | BackwardPlan,
    is_double: bool,
    reciprocals: bool = True,
    fast_exp: bool = False,
) -> str:
    """The source of a kernel, a function named `kernel`.

    Args:
        program: the program.
        plan: the kernel's form. In an aligned plan distances in memory are passed in units of `ALIGNMENT`.
        is_double: it computes in float64.
        reciprocals: it divides by numbers as torch does on a GPU; otherwise as on a CPU.
        fast_exp: exp, sigmoid and tanh of float32 are approximate.
    """
    return _TritonText(program, plan, TritonPrinter(is_double, fast_exp), reciprocals).source()


class _TritonText(KernelText):
    printer: TritonPrinter

    def statement(self, text: str) -> str:
        return text

    def declare(self, name: str, text: str) -> str:
        return f"{name} = {text}"

    def load(self, name: str, address: str, index: str) -> str:
        # Lanes beyond the last one compute with ones: a parameter may be a divisor.
        what = f"{address} + {index}, mask=mask, other=1.0" if index else address
        return f"{name} = tl.load({what}).to({self.printer.dtype})"

    def store(self, address: str, value: str) -> str:
        return f"tl.store({address} + lanes, {value}, mask=mask)"

    def loop(self, variable: str, count: str) -> tuple[str, str]:
        return f"for {variable} in range({count}):", ""

    def scope(self) -> tuple[str, str]:
        return "", ""

    def quotient(self, dividend: str, divisor: str) -> str:
        return f"{dividend} // {divisor}"

    def of_lanes(self, value: str) -> str:
        return f"tl.broadcast_to({value}, (BLOCK,))"

    def prepared(self, graph: Graph) -> Graph:
        return multiply_by_powers(super().prepared(graph))

    def source(self) -> str:
        """Everything; the body comes first, since it says which constants there are."""
        body = self.print_body()
        tensors, _ = arguments(self.program, self.plan)
        numbers = [f"{NUMBER}{slot}" for slot in range(len(self.program.numbers))]
        integers = [*integer_arguments(self.program, self.plan), *INTEGERS]
        is_double = self.printer.is_double
        number_type = '"i64"' if is_double else '"fp32"'
        names = [pointer(self.program, name) for name in tensors]
        names += [f'{name}: "i64"' for name in integers]
        names += [f"{name}: {number_type}" for name in numbers]
        dtype = self.printer.dtype
        head = [f"# {pointer(self.program, name)}: {name}" for name in tensors if "." in name]
        head += [f"ONE = tl.full((), 1.0, {dtype})", f"ZERO = tl.full((), 0.0, {dtype})", *self.printer.constants()]
        if is_double:
            # Python's floats would arrive as float32; these are the bits of float64.
            head += [f"{name} = tl.cast({name}, tl.int64).to(tl.float64, bitcast=True)" for name in numbers]
        for name in integers:
            # The compiler sees that the product is a multiple of 16, so it loads and stores vectors.
            unit = f" * {ALIGNMENT}" if self.plan.aligned and is_distance(name) else ""
            head.append(f"{name} = tl.cast({name}, tl.int64){unit}")
        head += [
            "lanes = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
            "mask = lanes < num_lanes",
        ]
        first = f"def {KERNEL}({', '.join(names)}, BLOCK: tl.constexpr):"
        return "\n".join([first, *(f"    {line}" for line in head), *body]) + "\n"
