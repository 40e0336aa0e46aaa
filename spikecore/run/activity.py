"""The part of a report about spikes: rates, silent and saturated neurons, rasters and membrane traces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from spikecore.analysis import figures, page
from spikecore.run import probe
from spikecore.run.text import SPLIT_NAMES

NUM_ROWS = 48
NUM_TRACES = 3
MAX_TRACED_STEPS = 300
MAX_LAYERS = 60
SILENT, ACTIVE, SATURATED = "var(--before)", "var(--c2)", "var(--c5)"


def activity(classes: Sequence[str], looks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The pictures of a run.

    Args:
        classes: names of the labels.
        looks: `before` and `after` → what `probe.probe` saw.
    """
    layers: dict[str, dict[str, Any]] = {}
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


def _rates(
    looks: Mapping[str, Mapping[str, Any]], layers: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> list[str]:
    moments = [moment for moment in ("before", "after") if layers.get(moment)]
    shades = {"before": "var(--before)", "after": "var(--c0)"}

    def bars_of(name: str) -> list[tuple[float, str]]:
        return [(layers[moment][name]["rate"], shades[moment]) for moment in moments if name in layers[moment]]

    values = [bars_of(name) for name in names]
    num = looks[moments[-1]].get("num_samples", 0)
    which = SPLIT_NAMES.get(looks[moments[-1]].get("split", ""), "example")
    rates = figures.legend([f"{m} training" for m in moments], [shades[m] for m in moments])
    rates += figures.bars(names, values, "firing rate per layer")
    rows, shares = [], []
    for name in names:
        for moment in moments:
            one = layers[moment].get(name)
            if one:
                active = 1 - one["silent"] - one["saturated"]
                line = [
                    (one["silent"], SILENT, "silent"),
                    (active, ACTIVE, "active"),
                    (one["saturated"], SATURATED, "saturated"),
                ]
                rows.append(f"{name} {moment}")
                shares.append(line)
    legend = figures.legend(["silent", "active", "saturated"], [SILENT, ACTIVE, SATURATED])
    detail = page.table(
        (
            "layer",
            "type",
            "neurons",
            *(f"rate {m}" for m in moments),
            *(f"silent {m}" for m in moments),
            *(f"saturated {m}" for m in moments),
        ),
        [
            (
                name,
                layers[moments[-1]][name]["type"],
                layers[moments[-1]][name]["num_neurons"],
                *(f"{layers[m][name]['rate']:.4f}" if name in layers[m] else "" for m in moments),
                *(f"{layers[m][name]['silent']:.1%}" if name in layers[m] else "" for m in moments),
                *(f"{layers[m][name]['saturated']:.1%}" if name in layers[m] else "" for m in moments),
            )
            for name in names
        ],
    )
    return [
        page.figure(
            "rates", "Firing rate per layer", rates, f"Spikes per neuron and step, over {num} {which} samples."
        ),
        page.figure(
            "shares",
            "Silent and saturated neurons",
            legend
            + figures.stacks(rows, shares, "shares of silent, active and saturated neurons")
            + page.collapsible("As numbers", detail),
            f"Silent: no spike in {num} {which} samples. "
            f"Saturated: fires in at least {probe.SATURATED_RATE:.0%} of the steps.",
        ),
    ]


def _headings(classes: Sequence[str], looks: Mapping[str, Mapping[str, Any]]) -> tuple[list[str] | None, str]:
    """The heading of each sample of a picture, None for its number; and what the headings mean."""
    labels: list[int] = next((look["labels"] for look in looks.values() if look.get("labels")), [])
    if not labels:
        return None, "the number of each sample"
    names = [str(classes[label]) if 0 <= label < len(classes) else str(label) for label in labels]
    return names, "the class of each sample"


def _pictures(name: str, seen: Mapping[str, Mapping[str, Any]], headings: Sequence[str] | None, meaning: str) -> str:
    """Raster and traces of one layer, before and after, of the same neurons and samples."""
    num_samples = len(next(iter(seen.values()))["spikes"])
    labels = [f"#{number}" for number in range(1, num_samples + 1)] if headings is None else headings
    total = sum(layer["spikes"].sum((0, 1)).long() for layer in seen.values())
    order = [int(i) for i in total.argsort(descending=True, stable=True)]
    firing = [i for i in range(len(total)) if int(total[i])] or list(range(len(total)))
    which = " of those that fire at least once" if int(total.max()) else ""
    # At most NUM_ROWS neurons at equal distances, the first and the last among them.
    num_rows = min(NUM_ROWS, len(firing))
    distance = (len(firing) - 1) / max(1, num_rows - 1)
    rows = [firing[round(row * distance)] for row in range(num_rows)]
    busy = [i for i in order if int(total[i])] or order
    lanes = list(dict.fromkeys((busy[0], busy[len(busy) // 2], busy[-1])))[:NUM_TRACES]
    shown = []
    for moment, layer in seen.items():
        picture = figures.raster(layer["spikes"][:, :, rows].tolist(), labels, f"spikes of {name} {moment} training")
        caption = f"{len(rows)} neurons{which}; above, {meaning}."
        shown.append(page.figure(f"raster-{moment}-{name}", f"{name}: spikes {moment} training", picture, caption))
    potentials = {moment: layer["v"][:, :MAX_TRACED_STEPS, lanes] for moment, layer in seen.items() if "v" in layer}
    threshold = next(iter(seen.values()))["v_threshold"]
    bounds = []
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
            [f"#{int(layer['index'][k])}" for k in lanes],
            labels,
            threshold,
            bounds,
            f"membrane potential in {name} {moment} training",
        )
        caption = "The most, a medium and the least active neuron; after the reset. Marks: spikes. Dashed: threshold."
        if layer["v"].shape[1] > MAX_TRACED_STEPS:
            caption += f" The first {MAX_TRACED_STEPS} of {layer['v'].shape[1]} steps."
        shown.append(page.figure(f"membrane-{moment}-{name}", f"{name}: membrane {moment} training", picture, caption))
    return page.grid(shown)


def _bounds(values: Sequence[float], threshold: float | None) -> tuple[float, float]:
    finite = [value for value in [*values, threshold] if value is not None and math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
