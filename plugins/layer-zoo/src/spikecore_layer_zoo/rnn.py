"""Recurrent nets whose gates are spikes: LSTM, GRU, vanilla. Weights join the neurons, so no backend fuses them.

    a[t] = W_ih x[t] + b_ih,   r[t] = W_hh h[t-1] + b_hh,   Θ: spike with a surrogate; h[-1] = c[-1] = 0

LSTM      i, f, o = Θ(a + r);  g = Θ2(a + r);  c = min(f c + i g, 1);  h = o c           (no gradient through the min)
GRU       r, z = Θ(a + r);  n = Θ2(a_n + r r_n);  h = (1 - z) n + z h
vanilla   h = Θ(a + r)

Source of the spiking LSTM: Lotfi Rezaabad and Vishwanath, Long Short-Term Memory Spiking Networks (ICONS 2020).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import OptionError, ShapeError


class Cell(torch.nn.Module):
    """One step of one layer: `(x [B, in], h, c) → (h, c)`.

    Args:
        input_size, hidden_size, bias: as torch.nn.LSTMCell; weights begin uniform in ±1/√hidden_size.
        surrogate: of Θ.
        second: of Θ2; the same when None.
    """

    num_gates: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        surrogate: nn.Surrogate | None = None,
        second: nn.Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.linear_ih = torch.nn.Linear(input_size, self.num_gates * hidden_size, bias)
        self.linear_hh = torch.nn.Linear(hidden_size, self.num_gates * hidden_size, bias)
        bound = 1 / math.sqrt(hidden_size)
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)
        self.surrogate = nn.Erf() if surrogate is None else surrogate
        self.second = self.surrogate if second is None else second

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next `(h, c)`."""
        raise NotImplementedError


class LSTMCell(Cell):
    """See the module's equations; gates in the order i, f, g, o."""

    num_gates = 4

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.linear_ih(x) + self.linear_hh(h)).chunk(4, -1)
        c = self.surrogate(f) * c + self.surrogate(i) * self.second(g)
        c = c - (c - c.clamp(max=1.0)).detach()
        return self.surrogate(o) * c, c


class GRUCell(Cell):
    """See the module's equations; gates in the order r, z, n."""

    num_gates = 3

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        a_r, a_z, a_n = self.linear_ih(x).chunk(3, -1)
        r_r, r_z, r_n = self.linear_hh(h).chunk(3, -1)
        r, z = self.surrogate(a_r + r_r), self.surrogate(a_z + r_z)
        n = self.second(a_n + r * r_n)
        return (1 - z) * n + z * h, c


class VanillaCell(Cell):
    """See the module's equations."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return self.surrogate(self.linear_ih(x) + self.linear_hh(h)), c


class SpikingRNN(nn.Stateful):
    """Layers of cells, one upon the other; base of the three nets.

    Args:
        input_size: of x.
        hidden_size: of h in every layer.
        num_layers: layers.
        bias: whether b_ih and b_hh are there.
        dropout: probability of dropping an output between two layers, in training.
        invariant_dropout: one mask for the whole sequence (in single-step mode and inside `streaming` it is state);
            otherwise each step draws its own.
        bidirectional: a second stack reads the sequence backwards; outputs side by side. Needs the whole sequence, so
            neither single-step mode nor `streaming`.
        surrogate, second: of Θ and Θ2.
        step_mode: `multi` or `single`.

    Raises:
        OptionError: `num_layers` below 1, `dropout` outside 0 .. 1.
        ShapeError: the input is not `[T, B, input_size]` (`[B, input_size]` in single-step mode); a bidirectional net
            is asked to stream.
        StateShapeError: the kept state belongs to another batch.
    """

    cell: ClassVar[type[Cell]] = Cell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        invariant_dropout: bool = False,
        bidirectional: bool = False,
        surrogate: nn.Surrogate | None = None,
        second: nn.Surrogate | None = None,
        step_mode: str = "multi",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if num_layers < 1 or hidden_size < 1 or input_size < 1:
            raise OptionError(f"{name}: input_size, hidden_size and num_layers must be >= 1")
        if not 0.0 <= dropout <= 1.0:
            raise OptionError(f"{name}: dropout must be >= 0 and <= 1, got {dropout!r}")
        nn.set_step_mode(self, step_mode)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.dropout, self.invariant_dropout, self.bidirectional = dropout, invariant_dropout, bidirectional
        directions = 2 if bidirectional else 1
        widths = [input_size] + [hidden_size * directions] * (num_layers - 1)
        self.cells = torch.nn.ModuleList(self.cell(w, hidden_size, bias, surrogate, second) for w in widths)
        self.backward_cells = torch.nn.ModuleList(
            self.cell(w, hidden_size, bias, surrogate, second) for w in (widths if bidirectional else [])
        )

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`h` and `c` of every layer, `[layers, B, hidden_size]`, 0; `masks` of the dropout that stays, 1 in eval."""
        state = {
            name: torch.zeros(shape, dtype=x.dtype, device=x.device) for name, shape in self._state_shapes(x).items()
        }
        if "masks" in state:
            state["masks"] = self._mask(state["masks"]) if self.training else state["masks"] + 1
        return state

    def state_forms(self, x: Tensor) -> dict[str, tuple[tuple[int, ...], torch.device, torch.dtype]]:
        """Shape, device and dtype of the state; asking draws no random number."""
        return {name: (shape, x.device, x.dtype) for name, shape in self._state_shapes(x).items()}

    def _state_shapes(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        directions, batch = 2 if self.bidirectional else 1, x.shape[0]
        state = (self.num_layers * directions, batch, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {"h": state, "c": state}
        if self.invariant_dropout and self.dropout and self.num_layers > 1:
            shapes["masks"] = (self.num_layers - 1, batch, self.hidden_size * directions)
        return shapes

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, input_size]` → `[T, B, hidden_size]`, twice that if bidirectional; without T in single-step mode."""
        multi, name = self.step_mode == "multi", type(self).__name__
        if x.dim() != 2 + multi or x.shape[-1] != self.input_size:
            form = "[T, B, input_size]" if multi else "[B, input_size]"
            raise ShapeError(
                f"{name} in step_mode {self.step_mode!r} takes {form} with input_size={self.input_size}, "
                f"got {tuple(x.shape)}"
            )
        if self.bidirectional and self.keeps_state:
            raise ShapeError(
                f"{name} is bidirectional and needs the whole sequence at once: use multi-step mode outside `streaming`"
            )
        sequence = x if multi else x.unsqueeze(0)
        state = self.state_for(sequence.new_empty(()).expand(sequence.shape[1:]))
        finals: list[tuple[Tensor, Tensor]] = []
        for layer in range(self.num_layers):
            if layer:
                sequence = self._dropped(sequence, state["masks"][layer - 1] if "masks" in state else None)
            sequence = self._layer(layer, sequence, state, finals)
        last = {"h": torch.stack([h for h, _ in finals]), "c": torch.stack([c for _, c in finals])}
        (out,) = self.keep({**state, **last}, sequence)
        return out if multi else out.squeeze(0)

    def _layer(self, layer: int, x: Tensor, state: dict[str, Tensor], finals: list[tuple[Tensor, Tensor]]) -> Tensor:
        outs = []
        for cells, backward in ((self.cells, False), (self.backward_cells, True)):
            if len(cells):
                h, c = state["h"][len(finals)], state["c"][len(finals)]
                steps = []
                for current in reversed(x.unbind(0)) if backward else x.unbind(0):
                    h, c = cells[layer](current, h, c)
                    steps.append(h)
                finals.append((h, c))
                ordered = steps[::-1] if backward else steps
                outs.append(torch.stack(ordered) if ordered else x.new_empty((0, x.shape[1], self.hidden_size)))
        return torch.cat(outs, -1)

    def _dropped(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if not self.training or not self.dropout:
            return x
        return x * (self._mask(x) if mask is None else mask)

    def _mask(self, like: Tensor) -> Tensor:
        share = 1.0 - self.dropout
        mask = torch.empty_like(like).bernoulli_(share)
        return mask / share if share else mask


class SpikingLSTM(SpikingRNN):
    __doc__ = SpikingRNN.__doc__
    cell = LSTMCell


class SpikingGRU(SpikingRNN):
    __doc__ = SpikingRNN.__doc__
    cell = GRUCell


class SpikingVanillaRNN(SpikingRNN):
    __doc__ = SpikingRNN.__doc__
    cell = VanillaCell
