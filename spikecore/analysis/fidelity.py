"""Agreement of two spike records, usually those of a net and of its artefact.

    out, spikes = record_spikes(net, x)
    fidelity = compare_traces(spikes, deployer.trace(artefact, x))
    print(fidelity)

A record is `{layer name: spikes [T, B, ...]}`. Every layer gets the share of outputs that agree, in total and per step,
its spike counts, and its first difference. The earliest step, and in it the first layer of the net, shows the cause.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikecore.documents import parse_json
from spikecore.errors import InputError, OptionError, ShapeError

FORM = 1
"""Version of the JSON text."""
MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Divergence:
    """One output that differs.

    Args:
        layer: its layer.
        step: t in `[T, B, ...]`.
        sample: b in `[T, B, ...]`.
        index: the rest of the place.
        expected: what the first record holds there, of the net.
        got: what the second one holds, of the artefact.
    """

    layer: str
    step: int
    sample: int
    index: tuple[int, ...]
    expected: float
    got: float

    def __str__(self) -> str:
        place = f"step {self.step}, sample {self.sample}, output {list(self.index)}"
        return f"layer {self.layer!r}, {place}: expected {self.expected:g}, got {self.got:g}"


@dataclass(frozen=True)
class LayerFidelity:
    """How far one layer agrees.

    Args:
        name: of the layer.
        shape: `[T, B, ...]`.
        num_different: outputs that differ.
        per_step: outputs that agree at each step, 0 to 1; empty where a step has no output.
        expected_spikes: outputs of the first record that are not 0.
        got_spikes: the same of the second.
        is_binary: both hold nothing but 0 and 1, so they are compared without tolerance.
        max_difference: largest |expected - got|; infinite where one of them is not a number.
        mean_difference: mean |expected - got|; likewise.
        first: the first difference, by step, then sample, then place.
    """

    name: str
    shape: tuple[int, ...]
    num_different: int
    per_step: tuple[float, ...]
    expected_spikes: int
    got_spikes: int
    is_binary: bool
    max_difference: float
    mean_difference: float
    first: Divergence | None

    @property
    def num_outputs(self) -> int:
        """Outputs that were compared."""
        return math.prod(self.shape)

    @property
    def agreement(self) -> float:
        """Share of the outputs that agree, 0 to 1; 1 where there is none."""
        return 1.0 if not self.num_outputs else 1.0 - self.num_different / self.num_outputs


@dataclass(frozen=True)
class Decisions:
    """What both decide: the class with the largest output, summed over the steps.

    Args:
        num_samples: that were compared.
        num_different: samples with another decision.
        accuracy: share of right decisions of the net; None without labels.
        artefact_accuracy: the same of the artefact.
    """

    num_samples: int
    num_different: int
    accuracy: float | None = None
    artefact_accuracy: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """The agreement of two records; `str` of it is a table.

    Args:
        layers: in the net's order.
        tolerance: two outputs that are not spikes agree when they differ by this at most.
        output: that of the net's output, where it was compared too.
        decisions: what both decide, where outputs are scores of classes.
    """

    layers: tuple[LayerFidelity, ...]
    tolerance: float = 0.0
    output: LayerFidelity | None = None
    decisions: Decisions | None = None

    @property
    def compared_layers(self) -> tuple[LayerFidelity, ...]:
        """The layers, then the output."""
        return self.layers if self.output is None else (*self.layers, self.output)

    @property
    def _counted_layers(self) -> tuple[LayerFidelity, ...]:
        """The layers that the sums include. Outputs that are not spikes hardly ever agree in every digit and would
        hide how far the spikes agree, so the output counts only in a net without neurons."""
        return self.layers or self.compared_layers

    @property
    def num_outputs(self) -> int:
        """Outputs of neurons that were compared."""
        return sum(layer.num_outputs for layer in self._counted_layers)

    @property
    def num_different(self) -> int:
        """Outputs of neurons that differ."""
        return sum(layer.num_different for layer in self._counted_layers)

    @property
    def agreement(self) -> float:
        """Share of the outputs of neurons that agree."""
        return 1.0 if not self.num_outputs else 1.0 - self.num_different / self.num_outputs

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs, the net's output included."""
        return not any(layer.num_different for layer in self.compared_layers)

    @property
    def first(self) -> Divergence | None:
        """The first difference: of the earliest step, the first layer in the net's order; else that of the output."""
        candidates = [layer.first for layer in self.layers if layer.first is not None]
        if not candidates:
            return None if self.output is None else self.output.first
        return min(candidates, key=lambda divergence: divergence.step)

    def with_output(
        self, expected: Tensor, got: Tensor, labels: Tensor | None = None, *, decides: bool = False
    ) -> Fidelity:
        """The same with the net's output compared as well.

        Args:
            expected: the net's output, `[T, B, ...]`.
            got: the artefact's.
            labels: the right class of each sample, `[B]`; implies `decides`.
            decides: outputs `[T, B, classes]` are scores, so compare which class they choose.

        Raises:
            ShapeError: the two differ in shape, or scores are not `[T, B, classes]`.
        """
        output = compare_layer("output", expected, got, self.tolerance)
        decisions = _decisions(expected, got, labels) if decides or labels is not None else None
        return dataclasses.replace(self, output=output, decisions=decisions)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings and lists, including the sums over all layers."""
        values: dict[str, Any] = {
            "form": FORM,
            "agreement": self.agreement,
            "num_outputs": self.num_outputs,
            "num_different": self.num_different,
            "tolerance": self.tolerance,
            "first": None if self.first is None else dataclasses.asdict(self.first),
            "layers": [_layer_to_dict(layer) for layer in self.layers],
            "output": None if self.output is None else _layer_to_dict(self.output),
            "decisions": None if self.decisions is None else dataclasses.asdict(self.decisions),
        }
        plain: dict[str, Any] = _plain_json(values)
        return plain

    def to_json(self) -> str:
        """As text; `from_json` reads it back."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fidelity:
        """What `to_dict` gave.

        Raises:
            InputError: it is of another form, or lacks something.
        """
        if not isinstance(values, Mapping) or values.get("form") != FORM:
            form = values.get("form") if isinstance(values, Mapping) else type(values).__name__
            raise InputError(
                f"expected a fidelity record of form {FORM}, got {form!r}: write it again with this version"
            )
        try:
            return cls(
                layers=tuple(_layer_from_dict(layer) for layer in values["layers"]),
                tolerance=float(values["tolerance"]),
                output=None if values["output"] is None else _layer_from_dict(values["output"]),
                decisions=None if values["decisions"] is None else Decisions(**values["decisions"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a fidelity record is damaged: {type(error).__name__}: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Fidelity:
        """What `to_json` gave.

        Raises:
            InputError: it is no JSON, of another form, or lacks something.
        """
        try:
            values = parse_json(text, most_bytes=MOST_BYTES)
        except ValueError as error:
            raise InputError(f"a fidelity record is damaged: {error}") from error
        return cls.from_dict(values)

    def __str__(self) -> str:
        head = ("layer", "shape", "agree", "differ", "spikes", "of artefact", "largest difference")
        rows = [head]
        for layer in self.compared_layers:
            counts = (str(layer.num_different), str(layer.expected_spikes), str(layer.got_spikes))
            rows.append((layer.name, str(list(layer.shape)), share_text(layer), *counts, f"{layer.max_difference:g}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = []
        for row in rows:
            texts = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
            numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join([*texts, *numbers]).rstrip())
        return "\n".join([*lines, *self.remarks()])

    def remarks(self) -> list[str]:
        """Sentences: the first difference, and the decisions."""
        lines = ["Nothing differs." if self.first is None else f"First difference: {self.first}."]
        if self.decisions is not None:
            same = self.decisions.num_samples - self.decisions.num_different
            lines.append(f"Same decision on {same} of {self.decisions.num_samples} samples.")
            if self.decisions.accuracy is not None and self.decisions.artefact_accuracy is not None:
                before, after = self.decisions.accuracy, self.decisions.artefact_accuracy
                lines.append(f"Accuracy {before:.2%} of the net, {after:.2%} of the artefact.")
        return lines


def compare_traces(expected: Mapping[str, Tensor], got: Mapping[str, Tensor], tolerance: float = 0.0) -> Fidelity:
    """The agreement of two spike records.

    Args:
        expected: layer name → `[T, B, ...]`, of the net, in its order.
        got: the same layers, of the artefact, in any order.
        tolerance: two outputs of a layer that is not binary agree when they differ by this at most.

    Raises:
        OptionError: one record has layers that the other lacks; the tolerance is negative or not finite.
        ShapeError: a layer has another shape in the other record, or fewer than two axes.

    Example:
        >>> net = {"hidden": torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])}
        >>> chip = {"hidden": torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])}
        >>> fidelity = compare_traces(net, chip)
        >>> fidelity.agreement, str(fidelity.first)
        (0.75, "layer 'hidden', step 1, sample 0, output [1]: expected 1, got 0")
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise OptionError(f"tolerance must be a finite number of at least 0, got {tolerance}")
    problems = []
    if missing := [repr(name) for name in expected if name not in got]:
        problems.append(f"lacks {', '.join(missing)}")
    if unknown := [repr(name) for name in got if name not in expected]:
        problems.append(f"has {', '.join(unknown)}, which the net's does not have")
    if problems:
        raise OptionError(
            f"two records of the same layers are compared; the second one {' and '.join(problems)}. "
            f"The net's layers are {', '.join(map(repr, expected)) or '(none)'}"
        )
    layers = [compare_layer(name, expected[name], got[name], tolerance) for name in expected]
    return Fidelity(tuple(layers), float(tolerance))


def compare_layer(name: str, expected: Tensor, got: Tensor, tolerance: float = 0.0) -> LayerFidelity:
    """The agreement of one layer's outputs `[T, B, ...]`; NaN agrees with nothing.

    Raises:
        ShapeError: the shapes differ, or have fewer than two axes.
    """
    for record, values in (("first", expected), ("second", got)):
        if not isinstance(values, Tensor):
            raise ShapeError(f"layer {name!r}: expected a tensor in the {record} record, got {type(values).__name__}")
    if expected.shape != got.shape or expected.dim() < 2:
        raise ShapeError(
            f"layer {name!r}: expected two records [T, B, ...] of one shape, got {tuple(expected.shape)} and "
            f"{tuple(got.shape)}"
        )
    ours = expected.detach().to("cpu", torch.float64)
    theirs = got.detach().to("cpu", torch.float64)
    is_binary = bool((((ours == 0) | (ours == 1)) & ((theirs == 0) | (theirs == 1))).all())
    differs = ours != theirs
    distance = torch.where(differs, (ours - theirs).abs(), 0.0)  # equal infinities: 0, where inf - inf is NaN
    distance = distance.nan_to_num(nan=math.inf, posinf=math.inf)
    if not is_binary:
        differs = distance > tolerance
    num_outputs = differs.numel()
    per_step = ()
    if num_outputs:
        per_step = tuple((~differs).flatten(1).double().mean(1).tolist())
    return LayerFidelity(
        name=name,
        shape=tuple(expected.shape),
        num_different=int(differs.sum()),
        per_step=per_step,
        expected_spikes=int((ours != 0).sum()),
        got_spikes=int((theirs != 0).sum()),
        is_binary=is_binary,
        max_difference=float(distance.max()) if num_outputs else 0.0,
        mean_difference=float(distance.mean()) if num_outputs else 0.0,
        first=_first(name, differs, ours, theirs),
    )


def share_text(layer: LayerFidelity | Fidelity) -> str:
    """The agreement in percent, never rounded up: 100 % is written only where nothing differs."""
    if not layer.num_different:
        return "100 %"
    return f"{math.floor(1e6 * layer.agreement) / 1e4:.4f} %"


def _first(name: str, differs: Tensor, ours: Tensor, theirs: Tensor) -> Divergence | None:
    if not differs.any():
        return None
    flat = int(differs.flatten().to(torch.uint8).argmax())  # argmax gives the first of equal maxima
    reversed_place = []
    for size in reversed(differs.shape):  # the last axis varies fastest
        flat, rest = divmod(flat, size)
        reversed_place.append(rest)
    step, sample, *index = reversed(reversed_place)
    at = (step, sample, *index)
    return Divergence(name, step, sample, tuple(index), float(ours[at]), float(theirs[at]))


def _decisions(expected: Tensor, got: Tensor, labels: Tensor | None) -> Decisions:
    if expected.dim() != 3:
        raise ShapeError(f"decisions are made on scores [T, B, classes], got {tuple(expected.shape)}")
    ours, theirs = expected.double().sum(0).argmax(-1).cpu(), got.double().sum(0).argmax(-1).cpu()
    count = len(ours)
    num_different = int((ours != theirs).sum())
    if labels is None or not count:
        return Decisions(count, num_different)
    if labels.shape != ours.shape:
        raise ShapeError(f"expected one label for each of {count} samples, got {tuple(labels.shape)}")
    right = labels.cpu()
    return Decisions(
        count, num_different, float((ours == right).double().mean()), float((theirs == right).double().mean())
    )


def _plain_json(value: Any) -> Any:
    """JSON data: infinities and NaN, which JSON does not have, become strings that `float` reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(part) for part in value]
    return value


def _layer_to_dict(layer: LayerFidelity) -> dict[str, Any]:
    return {"agreement": layer.agreement, **dataclasses.asdict(layer)}


def _layer_from_dict(values: Mapping[str, Any]) -> LayerFidelity:
    own = {field.name: values[field.name] for field in dataclasses.fields(LayerFidelity)}
    counts = [own[name] for name in ("num_different", "expected_spikes", "got_spikes")]
    for number in (*counts, *own["shape"]):
        if type(number) is not int:
            raise TypeError(f"counts and sizes are whole numbers, got {number!r:.80}")
    first = own["first"]
    if first is not None:
        numbers = {"expected": float(first["expected"]), "got": float(first["got"])}
        own["first"] = Divergence(**{**first, "index": tuple(first["index"]), **numbers})
    for name in ("shape", "per_step"):
        own[name] = tuple(own[name])
    for name in ("max_difference", "mean_difference"):
        own[name] = float(own[name])
    return LayerFidelity(**own)
