"""What Python hands to the driver for one call: a struct of 64-bit words, declared here once.

The fields of the two dataclasses are the fields of the C structs, in this order; `header` prints those structs, `pack`
writes the words. A field is one number, or an array with room for `MAX_TENSORS`, of which the first `num_states`,
`num_recorded` or `num_params` count.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, get_type_hints

from spikecore.dynamics import Program

MAX_TENSORS = 24
"""States, and parameters, that a program may have."""
PHASE = ("arrives", "num_steps")


@dataclass(frozen=True)
class C:
    """How a field looks in C.

    Args:
        text: the type of one element.
        words: 64-bit words of one element.
        per: what there is one element for; "" for the call as a whole.
    """

    text: str
    words: int = 1
    per: str = ""


_ADDRESS, _VIEW = "void *", "struct view"
Int = Annotated[int, C("int64_t ")]
Address = Annotated[int, C(_ADDRESS)]
View = Annotated[tuple[int, int, int], C(f"{_VIEW} ", 3)]
"""Address, words between steps, lanes: element (t, n) stands at t * step + n, or at t * step where lanes is 0."""
StateViews = Annotated[list[int], C(f"{_VIEW} ", 3, "states")]
StateAddresses = Annotated[list[int], C(_ADDRESS, 1, "states")]
RecordedViews = Annotated[list[int], C(f"{_VIEW} ", 3, "recorded")]
RecordedAddresses = Annotated[list[int], C(_ADDRESS, 1, "recorded")]
ParamAddresses = Annotated[list[int], C(_ADDRESS, 1, "params")]
Pack = Callable[..., bytes]


class Call:
    """Base of the two: the words of one call. Lists hold the words of their elements one after the other."""

    name: ClassVar[str]
    _words: Callable[[Call, Pack], bytes]

    def __init_subclass__(cls) -> None:
        # As @dataclass writes __init__: without a loop over the fields, which would take as long as a small kernel.
        parts = []
        for field, kind in _kinds(cls):
            is_one_word = not kind.per and kind.words == 1
            parts.append(f"self.{field}" if is_one_word else f"*self.{field}")
        cls._words = eval(f"lambda self, pack: pack({', '.join(parts)})")

    def pack(self, pack: Pack) -> bytes:
        """The call as bytes; `pack` comes from `packer`."""
        return self._words(pack)

    @classmethod
    def packer(cls, program: Program, start: str = "") -> Pack:
        """Packs the words of a call of this program, from the field `start` on."""
        return _packer(cls, start, len(program.states), len(program.record), len(program.params))

    @classmethod
    def offset(cls, name: str) -> int:
        """Bytes in front of a field."""
        size = 0
        for field, kind in _kinds(cls):
            if field == name:
                return size
            size += kind.words * 8 * (MAX_TENSORS if kind.per else 1)
        raise KeyError(name)


@cache
def _kinds(call: type[object]) -> list[tuple[str, C]]:
    hints = get_type_hints(call, include_extras=True)
    kinds = []
    for name in call.__annotations__:
        kind = next((mark for mark in getattr(hints[name], "__metadata__", ()) if isinstance(mark, C)), None)
        if kind is not None:
            kinds.append((name, kind))
    return kinds


@cache
def _packer(call: type[object], start: str, states: int, recorded: int, params: int) -> Pack:
    counts = {"states": states, "recorded": recorded, "params": params}
    names = [field for field, _ in _kinds(call)]
    form = ""
    for _, kind in _kinds(call)[names.index(start) if start else 0 :]:
        count = counts[kind.per] if kind.per else 1
        room = MAX_TENSORS if kind.per else 1
        form += f"{count * kind.words}q{(room - count) * kind.words * 8}x"
    return struct.Struct(form).pack


@dataclass(slots=True)
class ForwardCall(Call):
    """The arguments of `sc_forward_32` and `sc_forward_64`.

    Args:
        program: address of the table that the printer printed.
        numbers: of the program's numbers, in the precision of the state.
        num_threads: that may work on it.
        inner: lane n belongs to channel n // inner % channels.
        channels: of the per-channel parameters.
        io: element type of x and out, as in kernels.py.
        streams: 1: results go past the caches.
        block: lanes of a block.
        kept: what the backward pass will read in place of x; 0: nothing is kept.
        kept_io: its element type.
        bits: where spikes go as bits, in the order of memory, beside out; 0: nowhere. Of programs that give spikes,
            where the lanes of steps and blocks are whole words of 64 bits.
        num_steps: T.
        num_lanes: elements of one step.
        x: the input.
        out: the output.
        states: before the first step.
        finals: where the states after the last step go; 0: nowhere.
        recorded: where the sequences go.
        params: the tensor parameters.
    """

    name = "forward_call"
    program: Address
    numbers: Address
    num_threads: Int
    inner: Int
    channels: Int
    io: Int
    streams: Int
    block: Int
    kept: Address
    kept_io: Int
    bits: Address
    num_steps: Int
    num_lanes: Int
    x: View
    out: Address
    states: StateViews
    finals: StateAddresses
    recorded: RecordedAddresses
    params: ParamAddresses


@dataclass(slots=True)
class BackwardCall(Call):
    """The arguments of `sc_backward_32` and `sc_backward_64`; what has the same name is as in `ForwardCall`.

    Args:
        segment: steps between two checkpoints of the states.
        kept: not 0: x is what the forward pass kept.
        phases: address of the phases, from the last step to the first; see `phase_table`.
        arrives_recorded: bit 1 + s: there is a gradient of the recorded sequence of state s.
        grad_out: gradient of out.
        grad_x: where the gradient of x goes.
        grad_finals: gradients of the final states.
        grad_states: where the gradients of the initial states go.
        grad_recorded: gradients of the recorded sequences.
        grad_params: where the sums of the parameters' gradients go.
    """

    name = "backward_call"
    program: Address
    numbers: Address
    num_threads: Int
    inner: Int
    channels: Int
    io: Int
    streams: Int
    block: Int
    kept: Address
    kept_io: Int
    num_steps: Int
    num_lanes: Int
    segment: Int
    phases: Address
    arrives_recorded: Int
    x: View
    grad_out: View
    grad_x: Address
    states: StateViews
    grad_finals: StateViews
    grad_states: StateAddresses
    grad_recorded: RecordedViews
    params: ParamAddresses
    grad_params: ParamAddresses


def header() -> str:
    """The structs in C, for the driver."""
    parts = [
        f"#define MAX_TENSORS {MAX_TENSORS}",
        "/* Element (t, n) stands at data + t * step + n, or with `lanes` 0 at data + t * step. */\n"
        f"{_VIEW} {{\n    const char *data;\n    int64_t step, lanes;\n}};",
        "/* Steps of a backward pass at which the same gradients arrive. Bit 0: of out; bit 1 + s: of state s. */\n"
        f"struct phase {{\n    int64_t {', '.join(PHASE)};\n}};",
    ]
    parts += [struct_text(call) for call in (ForwardCall, BackwardCall)]
    return "\n\n".join(parts) + "\n"


def struct_text(call: type[Call]) -> str:
    """One of them in C."""
    lines = []
    for name, kind in _kinds(call):
        lines.append(f"    {kind.text}{name}{'[MAX_TENSORS]' if kind.per else ''};")
    return "\n".join([f"struct {call.name} {{", *lines, "};"])
