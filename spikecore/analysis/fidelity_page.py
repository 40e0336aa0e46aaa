"""The page of a deployed net: what became of each operator, and how far the artefact agrees with the net."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spikecore.analysis import figures, page
from spikecore.analysis.fidelity import Fidelity, LayerFidelity, share_text
from spikecore.analysis.quantization_error import QuantizationError
from spikecore.interfaces.deployer import OperatorRecord

MAX_LAYERS_DRAWN = 16


def fidelity_page(
    title: str,
    fidelity: Fidelity | None = None,
    records: Sequence[OperatorRecord] = (),
    notes: Sequence[str] = (),
    quantization: Sequence[QuantizationError] = (),
) -> str:
    """One self-contained HTML page; every text in it is escaped.

    Args:
        title: what was deployed, to what.
        fidelity: the agreement; None where nothing was compared, which the page then says.
        records: what became of each operator.
        notes: remarks of the deployer.
        quantization: the error of each quantized layer.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if fidelity is None:
        body.append(page.note("The artefact was not run: nothing is known of how far it agrees with the net."))
    else:
        body += _agreement(fidelity)
    if records:
        body.append(page.section("Operators", operator_table(records)))
    if quantization:
        body.append(page.section("Quantization", _quantization_table(quantization)))
    if notes:
        body.append(page.section("Notes", *map(page.note, notes)))
    return page.page(title, body)


def _quantization_table(errors: Sequence[QuantizationError]) -> str:
    head = ("layer", "bits", "largest error of a weight", "mean error", "largest weight")
    rows = [
        (error.layer, error.bits, f"{error.max_error:g}", f"{error.mean_error:g}", f"{error.max_weight:g}")
        for error in errors
    ]
    return page.table(head, rows)


def operator_table(records: Sequence[OperatorRecord]) -> str:
    """A row per operator."""
    rows = [
        (record.name, record.operator, record.outcome, record.target, record.reason, record.cure) for record in records
    ]
    return page.table(("name", "operator", "outcome", "on the target", "reason", "cure"), rows)


def _agreement(fidelity: Fidelity) -> list[str]:
    tiles = [
        ("spikes that agree", share_text(fidelity)),
        ("compared", str(fidelity.num_outputs)),
        ("differ", str(fidelity.num_different)),
    ]
    decisions = fidelity.decisions
    if decisions is not None:
        tiles.append(("same decision", f"{decisions.num_samples - decisions.num_different} of {decisions.num_samples}"))
        if decisions.accuracy is not None and decisions.artefact_accuracy is not None:
            tiles.append(("accuracy of the net", f"{decisions.accuracy:.2%}"))
            tiles.append(("accuracy of the artefact", f"{decisions.artefact_accuracy:.2%}"))
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    parts = [f'<dl class="tiles">{boxes}</dl>']
    if fidelity.first is not None:
        parts.append(f'<p class="banner">First difference: {escape(str(fidelity.first))}.</p>')
    rows = [_row(layer) for layer in fidelity.compared_layers]
    head = ("layer", "shape", "agree", "differ", "spikes of the net", "of the artefact", "largest difference", "first")
    parts.append(page.section("Layers", page.table(head, rows), *_per_step(fidelity)))
    if decisions is not None:
        parts.append(page.note("A decision is the class with the largest output, summed over the steps."))
    return parts


def _row(layer: LayerFidelity) -> tuple[object, ...]:
    first = layer.first
    where = "" if first is None else f"step {first.step}, sample {first.sample}, output {list(first.index)}"
    return (
        layer.name,
        str(list(layer.shape)),
        share_text(layer),
        layer.num_different,
        layer.expected_spikes,
        layer.got_spikes,
        f"{layer.max_difference:g}",
        where,
    )


def _per_step(fidelity: Fidelity) -> list[str]:
    """Curves of the layers that differ: a picture of straight lines at 100 % tells nothing."""
    differing = [layer for layer in fidelity.compared_layers if layer.num_different]
    if not differing:
        return [page.note("Every output of every layer agrees at every step.")]
    drawn = differing[:MAX_LAYERS_DRAWN]
    series = [figures.Series(layer.name, list(enumerate(layer.per_step))) for layer in drawn]
    picture = figures.legend([layer.name for layer in drawn]) + figures.curves(series, "step", percent=True)
    caption = "Share of a layer's outputs that agree, at each step."
    parts = [page.figure("agreement", "Agreement per step", picture, caption, narrow=True)]
    if len(differing) > len(drawn):
        left_out = ", ".join(layer.name for layer in differing[MAX_LAYERS_DRAWN:])
        parts.append(page.note(f"Not drawn: {left_out}"))
    return parts
