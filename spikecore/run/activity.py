"""The part of a report about spikes: rates, silent and saturated neurons, rasters and membrane traces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from spikecore.analysis import figures, page
from spikecore.run import probe
from spikecore.run.text import SPLIT_NAMES

NUM_ROWS = 48
NUM_TRACES = 3
MAX_TRACED_STEPS = 300
MAX_LAYERS = 60
MOMENTS = {"before": "var(--before)", "after": "var(--c0)"}
"""When the net was looked at, by training, and the colour that stands for it."""
SILENT, ACTIVE, SATURATED = "var(--before)", "var(--c2)", "var(--c5)"

Look = Mapping[str, Any]
"""What `probe.probe` saw at one moment."""
Layer = Mapping[str, Any]
"""What it saw of one layer."""


def activity(classes: Sequence[str], looks: Mapping[str, Look]) -> list[str]:
    """The pictures of a run.

    Args:
        classes: names of the labels.
        looks: `before` and `after` → what `probe.probe` saw.
    """
    layers: dict[str, dict[str, Layer]] = {}
    for moment, look in looks.items():
        layers[moment] = {layer["name"]: layer for layer in look["layers"]}
    names = list(layers.get("after") or layers.get("before") or {})
    if not names:
        unseen: list[str] = next((look["unseen"] for look in looks.values() if look.get("unseen")), [])
        if unseen:
            return [page.note(f"The net's layers of neurons were not fed, so nothing is shown of {', '.join(unseen)}.")]
        return [page.note("The net has no layer of spiking neurons.")] if looks else []
    parts = [page.grid(_rates(looks, layers, names[:MAX_LAYERS]))]
    if len(names) > MAX_LAYERS:
        parts.append(page.note(f"The first {MAX_LAYERS} of {len(names)} layers."))
    for name in names:
        seen = {moment: by_name[name] for moment, by_name in layers.items() if "spikes" in by_name.get(name, {})}
        if seen:
            parts.append(_pictures(name, seen, *_headings(classes, looks)))
    return parts


def _rates(looks: Mapping[str, Look], layers: Mapping[str, Mapping[str, Layer]], names: Sequence[str]) -> list[str]:
    """Two figures: the firing rate of every layer, and its shares of silent and saturated neurons."""
    moments = [moment for moment in MOMENTS if layers.get(moment)]
    latest = looks[moments[-1]]
    num = latest.get("num_samples", 0)
    which = SPLIT_NAMES.get(latest.get("split", ""), "example")
    shares = figures.legend(["silent", "active", "saturated"], [SILENT, ACTIVE, SATURATED])
    shares += _share_bars(layers, moments, names)
    shares += page.collapsible("As numbers", _rate_table(layers, moments, names))
    return [
        page.figure(
            "rates",
            "Firing rate per layer",
            _rate_bars(layers, moments, names),
            f"Spikes per neuron and step, over {num} {which} samples.",
        ),
        page.figure(
            "shares",
            "Silent and saturated neurons",
            shares,
            f"Silent: no spike in {num} {which} samples. "
            f"Saturated: fires in at least {probe.SATURATED_RATE:.0%} of the steps.",
        ),
    ]


def _rate_bars(layers: Mapping[str, Mapping[str, Layer]], moments: Sequence[str], names: Sequence[str]) -> str:
    """A group of bars for each layer: its rate before and after training."""
    groups: list[list[tuple[float, str]]] = []
    for name in names:
        known = [moment for moment in moments if name in layers[moment]]
        groups.append([(layers[moment][name]["rate"], MOMENTS[moment]) for moment in known])
    titles = [f"{moment} training" for moment in moments]
    legend = figures.legend(titles, [MOMENTS[moment] for moment in moments])
    return legend + figures.bars(names, groups, "firing rate per layer")


def _share_bars(layers: Mapping[str, Mapping[str, Layer]], moments: Sequence[str], names: Sequence[str]) -> str:
    """A bar for each layer and moment, cut into silent, active and saturated neurons."""
    rows: list[str] = []
    shares: list[list[tuple[float, str, str]]] = []
    for name in names:
        for moment in moments:
            layer = layers[moment].get(name)
            if not layer:
                continue
            active = 1 - layer["silent"] - layer["saturated"]
            rows.append(f"{name} {moment}")
            shares.append(
                [
                    (layer["silent"], SILENT, "silent"),
                    (active, ACTIVE, "active"),
                    (layer["saturated"], SATURATED, "saturated"),
                ]
            )
    return figures.stacks(rows, shares, "shares of silent, active and saturated neurons")


def _rate_table(layers: Mapping[str, Mapping[str, Layer]], moments: Sequence[str], names: Sequence[str]) -> str:
    """The numbers of both figures: a row for each layer, and a column for each quantity and moment."""
    quantities = {"rate": ".4f", "silent": ".1%", "saturated": ".1%"}
    head = ["layer", "type", "neurons"]
    for quantity in quantities:
        head += [f"{quantity} {moment}" for moment in moments]
    rows: list[list[Any]] = []
    for name in names:
        latest = layers[moments[-1]][name]
        row: list[Any] = [name, latest["type"], latest["num_neurons"]]
        for quantity, form in quantities.items():
            for moment in moments:
                layer = layers[moment].get(name)
                row.append(format(layer[quantity], form) if layer else "")
        rows.append(row)
    return page.table(head, rows)


def _headings(classes: Sequence[str], looks: Mapping[str, Look]) -> tuple[list[str] | None, str]:
    """The heading of each sample of a picture, None for its number; and what the headings mean."""
    labels: list[int] = next((look["labels"] for look in looks.values() if look.get("labels")), [])
    if not labels:
        return None, "the number of each sample"
    names: list[str] = []
    for label in labels:
        is_named = 0 <= label < len(classes)
        names.append(str(classes[label]) if is_named else str(label))
    return names, "the class of each sample"


def _pictures(name: str, seen: Mapping[str, Layer], headings: Sequence[str] | None, meaning: str) -> str:
    """Rasters and traces of one layer, before and after, of the same neurons and samples."""
    num_samples = len(next(iter(seen.values()))["spikes"])
    labels = headings
    if labels is None:
        labels = [f"#{number}" for number in range(1, num_samples + 1)]
    total = sum(layer["spikes"].sum((0, 1)).long() for layer in seen.values())
    return page.grid([*_rasters(name, seen, total, labels, meaning), *_traces(name, seen, total, labels)])


def _rasters(name: str, seen: Mapping[str, Layer], total: Tensor, labels: Sequence[str], meaning: str) -> Iterator[str]:
    """Spikes of at most NUM_ROWS neurons; `total` holds the spikes of each neuron, at both moments."""
    rows = _rows(total)
    which = " of those that fire at least once" if int(total.max()) else ""
    for moment, layer in seen.items():
        picture = figures.raster(layer["spikes"][:, :, rows].tolist(), labels, f"spikes of {name} {moment} training")
        caption = f"{len(rows)} neurons{which}; above, {meaning}."
        yield page.figure(f"raster-{moment}-{name}", f"{name}: spikes {moment} training", picture, caption)


def _rows(total: Tensor) -> list[int]:
    """Neurons that fire (any, where none does) at equal distances, the first and the last among them."""
    firing = [neuron for neuron in range(len(total)) if int(total[neuron])] or list(range(len(total)))
    num_rows = min(NUM_ROWS, len(firing))
    distance = (len(firing) - 1) / max(1, num_rows - 1)
    return [firing[round(row * distance)] for row in range(num_rows)]


def _traces(name: str, seen: Mapping[str, Layer], total: Tensor, labels: Sequence[str]) -> Iterator[str]:
    """Potentials of NUM_TRACES neurons; a neuron has the same scale at both moments."""
    lanes = _lanes(total)
    threshold = next(iter(seen.values()))["v_threshold"]
    potentials = {moment: layer["v"][:, :MAX_TRACED_STEPS, lanes] for moment, layer in seen.items() if "v" in layer}
    bounds: list[tuple[float, float]] = []
    for lane in range(len(lanes)):
        voltages: list[float] = []
        for v in potentials.values():
            voltages += v[:, :, lane].flatten().tolist()
        bounds.append(_bounds(voltages, threshold))
    for moment, v in potentials.items():
        layer = seen[moment]
        picture = figures.traces(
            v.tolist(),
            layer["spikes"][:, :MAX_TRACED_STEPS, lanes].tolist(),
            [f"#{int(layer['index'][lane])}" for lane in lanes],
            labels,
            threshold,
            bounds,
            f"membrane potential in {name} {moment} training",
        )
        caption = "The most, a medium and the least active neuron; after the reset. Marks: spikes. Dashed: threshold."
        if layer["v"].shape[1] > MAX_TRACED_STEPS:
            caption += f" The first {MAX_TRACED_STEPS} of {layer['v'].shape[1]} steps."
        yield page.figure(f"membrane-{moment}-{name}", f"{name}: membrane {moment} training", picture, caption)


def _lanes(total: Tensor) -> list[int]:
    """The most, a medium and the least active of the neurons that fire; of all, where none does."""
    order = [int(neuron) for neuron in total.argsort(descending=True, stable=True)]
    busy = [neuron for neuron in order if int(total[neuron])] or order
    chosen = (busy[0], busy[len(busy) // 2], busy[-1])
    return list(dict.fromkeys(chosen))[:NUM_TRACES]


def _bounds(values: Sequence[float], threshold: float | None) -> tuple[float, float]:
    """The scale of a trace: all values and the threshold, and never nothing."""
    finite = [value for value in values if math.isfinite(value)]
    if threshold is not None and math.isfinite(threshold):
        finite.append(threshold)
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
