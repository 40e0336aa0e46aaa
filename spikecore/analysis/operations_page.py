"""The page of what a net costs: operations, energy and time of each layer, beside the artificial net of its shape."""

from __future__ import annotations

from html import escape

from spikecore.analysis import figures, page
from spikecore.analysis.operations import ENERGY_MODELS, LayerOperations, Operations
from spikecore.analysis.operations.layers import amount

MAX_LAYERS = 40
SPIKING, ORDINARY = "var(--c0)", "var(--c5)"


def operations_page(title: str, operations: Operations, ann: Operations | None = None, note: str = "") -> str:
    """One self-contained HTML page; every text in it is escaped.

    Args:
        title: what was measured.
        operations: of the net.
        ann: of the artificial net of the same shape; None where there is none, for the reason in `note`.
        note: a remark.
    """
    parts = [f"<h1>{escape(title)}</h1>", *operations_section(operations, ann)]
    if note:
        parts.append(page.note(note))
    return page.page(title, parts)


def operations_section(operations: Operations, ann: Operations | None = None) -> list[str]:
    """Figures and tables, for a page."""
    tiles = [
        ("SynOps per sample", amount(operations.total("synops")) or "0"),
        ("activation sparsity", f"{operations.activation_sparsity:.1%}"),
        ("connection sparsity", f"{operations.connection_sparsity:.1%}"),
        ("parameters and buffers", f"{operations.footprint:,} bytes"),
    ]
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    parts = [f'<dl class="tiles">{boxes}</dl>', _energy_table(operations, ann)]
    multiplying = operations.products[:MAX_LAYERS]
    if multiplying:
        parts.append(page.grid([_operations_figure(multiplying), _energy_figure(multiplying, ann)]))
    timed = [layer for layer in operations.layers if layer.time_s is not None][:MAX_LAYERS]
    if timed:
        values = [[((layer.time_s or 0.0) * 1e6, SPIKING)] for layer in timed]
        picture = figures.bars([layer.name for layer in timed], values, "time of each layer")
        parts.append(page.figure("times", "Time", picture, "µs for one sample, forward pass.", narrow=True))
    parts.append(page.collapsible("Every layer", f"<pre>{escape(operations.table())}</pre>"))
    if operations.uncounted:
        parts.append(page.note(f"Not counted: products within {', '.join(operations.uncounted)}."))
    return parts


def _energy_table(operations: Operations, ann: Operations | None) -> str:
    rows: list[tuple[object, ...]] = []
    for name, model in ENERGY_MODELS.items():
        energy = operations.energy_pj(name) / 1000
        other, ratio = "–", "–"
        if ann is not None:
            ordinary = ann.energy_pj(name) / 1000
            other, ratio = f"{ordinary:.5g}", f"{ordinary / energy:.3g}" if energy else "–"
        rows.append((name, f"{energy:.5g}", other, ratio, model.source))
    return page.table(("model", "energy in nJ", "of the ANN in nJ", "ANN / SNN", "source"), rows)


def _operations_figure(layers: tuple[LayerOperations, ...]) -> str:
    values = [[(layer.macs, ORDINARY), (layer.acs, SPIKING)] for layer in layers]
    picture = figures.legend(["MAC", "AC"], [ORDINARY, SPIKING])
    picture += figures.bars([layer.name for layer in layers], values, "operations of each layer")
    return page.figure("operations", "Operations", picture, "Per sample, over all steps.")


def _energy_figure(layers: tuple[LayerOperations, ...], ann: Operations | None) -> str:
    model = ENERGY_MODELS["horowitz-fp32"]
    ordinary = {layer.name: model.of_layer(layer) / 1000 for layer in ann.products} if ann is not None else {}
    values = []
    for layer in layers:
        bars = [(model.of_layer(layer) / 1000, SPIKING)]
        if ann is not None:
            bars.append((ordinary.get(layer.name, 0.0), ORDINARY))
        values.append(bars)
    names = ["this net"] + (["the ANN of its shape"] if ann is not None else [])
    picture = figures.legend(names, [SPIKING, ORDINARY][: len(names)])
    picture += figures.bars([layer.name for layer in layers], values, "energy of each layer")
    return page.figure("energy", "Energy", picture, f"nJ per sample: {model.source}.")
