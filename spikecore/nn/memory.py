"""What a module remembers between calls: one `Memory` for each thread, so that threads may share a net.

Three things end before their graph does: a `with streaming(net)` block, a step of `functional(net)`, a call of a
recurrent container. Activation checkpointing runs a part of such a call again in the backward pass, when the state that
it started from is gone. `Span` tells: autograd numbers its nodes, and the span covers those made while such a state was
there. That holds on every thread; autograd's own threads see nothing of the caller's memory.
"""

from __future__ import annotations

import threading
import uuid
from weakref import WeakSet

import torch
from torch import Tensor

from spikecore.torch_internals import current_node, next_node, node_number

State = dict[str, Tensor]
Form = tuple[tuple[int, ...], torch.device, torch.dtype]


class Memory:
    """What one module remembers in one thread.

    Args:
        below: set for a memory that replaces another one during a call: the replaced one, restored after the call.
        is_functional: `functional` puts the state in and takes it out; `initial` is what a sequence started from.
    """

    def __init__(self, below: Memory | None = None, is_functional: bool = False) -> None:
        self.state: State | None = None
        self.initial: State | None = None
        self.form: Form | None = None  # of the last input that the kept state was found to fit
        self.below = below
        self.is_explicit = below is not None
        self.is_functional = is_functional
        self.streams = self.is_explicit  # state is kept in multi-step mode too
        self.block: Block | None = None
        self.span: Span | None = None  # of the module, while this memory streams
        self.first_node = 0  # of the graph made since then
        self.recorded: State = {}
        self.pieces: list[State] | None = None  # what single steps recorded, inside a recurrent container

    def begin_streaming(self, span: Span) -> None:
        """Note where in the graph the calls begin whose state will not last."""
        self.span, self.first_node = span, next_node()

    def end_streaming(self) -> None:
        """Note where they end."""
        if self.span is not None:
            self.span.cover(self.first_node, next_node())

    def take(self, recorded: State) -> None:
        """Hold what a call recorded; inside a recurrent container, as one step of many."""
        if self.pieces is None:
            self.recorded = recorded
        else:
            self.pieces.append(recorded)


class PerThread(threading.local):
    """Holds the memory of one module for the thread that asks.

    `memory` is a plain object because torch.compile loses what is written to a `threading.local` itself.
    """

    def __init__(self) -> None:
        self.memory = Memory()

    @property
    def lasting(self) -> Memory:
        """The memory beneath those that replace it during a call."""
        memory = self.memory
        while memory.below is not None:
            memory = memory.below
        return memory


class Span:
    """Which nodes of the graph were made while a module had a state that a later call does not find."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.end = 0
        self.block: Block | None = None

    def cover(self, first: int, end: int, block: Block | None = None) -> None:
        """Add the nodes from `first` up to, and without, `end`; and those that `block` adds as long as it is open.

        One range holds all that was ever added. Calls without a graph add nothing.
        """
        if end > first:
            self.first = first if self.first is None else min(first, self.first)
            self.end = max(end, self.end)
            self.block = block

    def holds_current_node(self) -> bool:
        """Is the node that this backward pass is at within the span?"""
        node = current_node()
        if self.first is None or node is None:
            return False
        number = node_number(node)
        is_open = self.block is not None and self.block.is_open
        return self.first <= number and (number < self.end or is_open)


class Block:
    """One `with streaming(net)` block. Copies of the net that are made inside belong to it, and end with it."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex  # pickles hold it, so it must differ between processes
        self._memories: WeakSet[Memory] = WeakSet()
        self._lock = threading.Lock()  # another thread may copy the net while the block closes
        _OPEN[self.token] = self

    @property
    def is_open(self) -> bool:
        """Whether calls still stream."""
        return self.token in _OPEN

    def join(self, memory: Memory, span: Span) -> None:
        """Let the memory of a module with this span stream until the block closes."""
        with self._lock:
            if self.is_open:
                memory.streams, memory.block = True, self
                memory.begin_streaming(span)
                self._memories.add(memory)

    def close(self) -> None:
        """Drop every state that the block kept."""
        with self._lock:
            del _OPEN[self.token]
            for memory in self._memories:
                memory.end_streaming()
                memory.streams, memory.block, memory.state = False, None, None


_OPEN: dict[str, Block] = {}


def open_block(token: str | None) -> Block | None:
    """The block of this token, as long as it is open in this process."""
    return None if token is None else _OPEN.get(token)
