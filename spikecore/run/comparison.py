"""How the decisions of a converted net compare with those of the given one, and with labels, over the steps.

The inputs are those on which the given net would be measured: the test split of its run, or of the dataset that
calibrates. Where there is none, the first calibration batch is compared, without labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.datasets import offline
from spikecore.errors import SpikeError, StateError
from spikecore.interfaces.converter import ConversionReport, Points
from spikecore.nn import reset_state, streaming
from spikecore.run.calibration import Calibration, task_of
from spikecore.run.checkpoint import LAST
from spikecore.run.samples import from_split, of_dataset
from spikecore.run.sources import Source

AT_ONCE = 64
"""Inputs of one call."""


@dataclass(frozen=True)
class Inputs:
    """What is compared.

    Args:
        x: `[B, ...]`, or `[T, B, ...]` for a net with state.
        labels: the class of each, `[B]`; None where none are known.
        source: what they are, in words: `64 test samples of digits`.
    """

    x: Tensor
    labels: Tensor | None
    source: str


@dataclass(frozen=True)
class Comparison:
    """How both nets decide.

    Args:
        agreement: share of equal decisions after the last step; None where nothing was compared, or the output is not
            one row of scores per sample.
        compared: on what, in words.
        curves: `agreement over T`; with labels `accuracy over T` and `accuracy of the given net`.
    """

    agreement: float | None = None
    compared: str = ""
    curves: dict[str, Points] = field(default_factory=dict)

    def added_to(self, report: ConversionReport) -> ConversionReport:
        """The report with these curves; one of the same name, which is of fewer inputs, is replaced."""
        return replace(report, curves={**report.curves, **self.curves})


def inputs_of(
    source: Source, data: str | None, calibration: Calibration | None, count: int, remark: Callable[[str], None]
) -> Inputs | None:
    """At most `count` inputs to compare on; None for none.

    Args:
        source: of the given net.
        data: what `--data` named.
        calibration: the inputs for the converter; None where it needs none.
        count: 0 for none.
        remark: takes a sentence where the data of the run cannot be read, which nothing else needs.

    Raises:
        ConfigError: the dataset that `data` names is not there.
        DatasetError: its samples are damaged.
    """
    if not count:
        return None
    data = source.dataset if data is None else data
    if data is None and source.directory is not None and source.has_run:
        try:
            with offline():  # nothing is downloaded for the sake of a comparison
                return _of_run(source, count)
        except (SpikeError, OSError) as error:
            remark(f"decisions are not compared on the data of {source.directory}: {error}")
    elif data is not None and not data.endswith((".safetensors", ".npy")):
        samples = of_dataset(data, count, source.num_steps)
        return Inputs(samples.x, samples.labels, samples.source)
    first = next(calibration.batches(), None) if calibration is not None else None
    if first is None:
        return None
    axis = 1 if source.about["step_mode"] == "multi" else 0
    x = first.narrow(axis, 0, min(count, first.shape[axis]))
    return Inputs(x, None, f"{x.shape[axis]} calibration inputs")


def _of_run(source: Source, count: int) -> Inputs:
    assert source.directory is not None
    task = task_of(source.directory, source.about.get("checkpoint", LAST))
    name = "test" if task.test is not None else "train"
    samples = from_split(task, count, name)
    text = f"{samples.x.shape[1]} {name} samples of {source.directory}"
    if source.about["step_mode"] == "multi":
        return Inputs(samples.x, samples.labels, text)
    # Of a net without state every step of a sequence is an input of its own.
    labels = None if samples.labels is None else samples.labels.repeat(len(samples.x))
    return Inputs(samples.x.flatten(0, 1), labels, text)


def compare(given: nn.Module, made: nn.Module, inputs: Inputs | None, num_steps: int, is_sequence: bool) -> Comparison:
    """Run both nets in evaluation mode and count their decisions after every step; copies run.

    Args:
        given: takes `[B, ...]`, or `[T, B, ...]` where `is_sequence`.
        made: takes `[T, B, ...]`; of an input `[B, ...]` it sees the same at every step. One that takes whole sequences
            only is compared after the last step alone.
        inputs: None for none.
        num_steps: T for inputs without one.
        is_sequence: inputs have their own T.
    """
    if inputs is None:
        return Comparison()
    counts: dict[int, list[int]] = {}
    num_samples = 0
    axis = 1 if is_sequence else 0
    given, made = copy.deepcopy(given).eval(), copy.deepcopy(made).eval()
    with torch.no_grad():
        for x, labels in _parts(inputs, axis):
            right = given(x)
            reset_state(given)
            if not isinstance(right, Tensor) or right.dim() != 2 + axis:
                return Comparison()
            decided = right.cumsum(0).argmax(-1) if is_sequence else right.argmax(-1)
            totals = _over_steps(made, x) if is_sequence else _by_steps(made, x, num_steps)
            for step, total in totals:
                if total.shape != right.shape[axis:]:
                    return Comparison()
                ours, theirs = total.argmax(-1), decided[step - 1] if is_sequence else decided
                count = counts.setdefault(step, [0, 0, 0])
                count[0] += int((ours == theirs).sum())
                if labels is not None:
                    count[1] += int((ours == labels).sum())
                    count[2] += int((theirs == labels).sum())
            reset_state(made)
            num_samples += x.shape[axis]
    if not counts:
        return Comparison()
    names = ["agreement over T"]
    if inputs.labels is not None:
        names += ["accuracy over T", "accuracy of the given net"]
    curves: dict[str, Points] = {}
    for place, name in enumerate(names):
        curves[name] = tuple((float(step), count[place] / num_samples) for step, count in sorted(counts.items()))
    last = max(counts)
    compared = inputs.source if is_sequence else f"{inputs.source}, T = {num_steps}"
    return Comparison(counts[last][0] / num_samples, compared, curves)


def _parts(inputs: Inputs, axis: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """A few samples at a time."""
    labels: Any = [None] * len(torch.split(inputs.x, AT_ONCE, axis))
    if inputs.labels is not None:
        labels = torch.split(inputs.labels, AT_ONCE)
    yield from zip(torch.split(inputs.x, AT_ONCE, axis), labels, strict=True)


def _over_steps(net: nn.Module, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Step → the sum of the scores so far, of a sequence `[T, B, ...]`."""
    yield from enumerate(net(x).cumsum(0), start=1)


def _by_steps(net: nn.Module, x: Tensor, num_steps: int) -> Iterator[tuple[int, Tensor]]:
    """Step → the sum of the scores so far, with `x` at every step."""
    try:
        with streaming(net):
            total = net(x.unsqueeze(0))[0]
            yield 1, total
            for step in range(2, num_steps + 1):
                total = total + net(x.unsqueeze(0))[0]
                yield step, total
    except StateError:
        # It takes whole sequences: what it puts out at a step is not what it would after so many steps.
        yield num_steps, net(x.expand(num_steps, *x.shape)).sum(0)
