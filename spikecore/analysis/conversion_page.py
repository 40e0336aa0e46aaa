"""The page of a converted net: what became of each call, how near it is to the given net, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spikecore.analysis import figures, page
from spikecore.interfaces.converter import ConversionReport, LayerReport

MAX_LAYERS_DRAWN = 16
DECISIONS = ("accuracy of the given net", "accuracy over T", "agreement over T")


def conversion_page(title: str, report: ConversionReport, notes: Sequence[str] = ()) -> str:
    """One self-contained HTML page; every text in it is escaped.

    Args:
        title: what was converted, by what.
        report: the converter's, with the curves that were measured.
        notes: what the curves were measured on, and other remarks.
    """
    body = [f"<h1>{escape(title)}</h1>", *_tiles(report), *map(page.note, notes)]
    pictures = [*_decisions(report), *_other_curves(report), *_correlations(report)]
    if pictures:
        body.append(page.section("Over the steps", page.grid(pictures), *_not_drawn(report)))
    if report.numbers:
        rows = [(name, float(value)) for name, value in report.numbers.items()]
        body.append(page.section("Cost of a sample", page.table(("what", "value"), rows)))
    head = ("name", "outcome", "what", "threshold", "correlation", "rate")
    body.append(page.section("Calls", page.table(head, [_row(layer) for layer in report.layers])))
    return page.page(title, body)


def _tiles(report: ConversionReport) -> list[str]:
    tiles = [(outcome, str(len(report.names(outcome)))) for outcome in ("became", "kept", "refused")]
    for name in DECISIONS:
        points = report.curves.get(name)
        if points:
            step, value = points[-1]
            what = name if name.endswith("net") else f"{name.removesuffix(' over T')}, T = {step:g}"
            tiles.append((what, f"{value:.2%}"))
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    return [f'<dl class="tiles">{boxes}</dl>']


def _decisions(report: ConversionReport) -> list[str]:
    names = [name for name in DECISIONS if report.curves.get(name)]
    if not names:
        return []
    series = [figures.Series(name, report.curves[name]) for name in names]
    picture = figures.legend(names) + figures.curves(series, "T", percent=True)
    caption = "Decisions by the mean output of the first T steps."
    return [page.figure("accuracy", "Accuracy against T", picture, caption, narrow=True)]


def _other_curves(report: ConversionReport) -> list[str]:
    parts = []
    for index, (name, points) in enumerate(report.curves.items()):
        if name not in DECISIONS and points:
            picture = figures.curves([figures.Series(name, points)], "T", whole_x=False)
            parts.append(page.figure(f"curve-{index}", name, picture, narrow=True))
    return parts


def _measured(report: ConversionReport) -> list[LayerReport]:
    """Layers with a correlation, the worst first."""
    measured = [layer for layer in report.layers if layer.correlation]
    return sorted(measured, key=lambda layer: layer.correlation[-1])


def _correlations(report: ConversionReport) -> list[str]:
    worst = {layer.name for layer in _measured(report)[:MAX_LAYERS_DRAWN]}
    drawn = [layer for layer in report.layers if layer.name in worst]  # in the order of the net
    if not drawn or max(len(layer.correlation) for layer in drawn) < 2:
        return []
    series = [figures.Series(layer.name, list(enumerate(layer.correlation, start=1))) for layer in drawn]
    picture = figures.legend([layer.name for layer in drawn]) + figures.curves(series, "T")
    caption = "Of the given net's activation and the mean output of the first T steps."
    return [page.figure("correlation", "Correlation of each layer", picture, caption, narrow=True)]


def _not_drawn(report: ConversionReport) -> list[str]:
    others = [layer.name for layer in _measured(report)[MAX_LAYERS_DRAWN:]]
    return [page.note(f"Not drawn, since they are nearer: {', '.join(others)}")] if others else []


def _row(layer: LayerReport) -> tuple[object, ...]:
    correlation = f"{layer.correlation[-1]:.4f}" if layer.correlation else ""
    rate = "" if layer.rate is None else f"{layer.rate:.4f}"
    return layer.name, layer.outcome, layer.reason, layer.threshold_text, correlation, rate
