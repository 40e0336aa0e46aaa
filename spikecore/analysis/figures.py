"""Pictures as inline SVG: plain marks in the colours of page.css, so they follow light and dark and need no script.

Every picture is drawn 440 units wide, which stays readable on a phone. Text that comes from users is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 440
NUM_COLOURS = 8
MAX_POINTS = 400
MAX_COLUMNS = 240
MAX_DOTS = 60
"""Points of a curve that are also drawn as dots, with their values as tips."""
DASHES = ("", "6 4", "2 3")
"""Of the first curves in each colour, of the next ones, and so on."""
NAMED_CELL, COUNTED_CELL = 9, 18
"""The smallest cells of a matrix with names at its borders, and with counts inside; smaller text cannot be read."""


@dataclass(frozen=True)
class Series:
    """One curve: name, and points `(x, y)`; y is None where there is no value."""

    name: str
    points: Sequence[tuple[float, float | None]]


def colour(index: int) -> str:
    """The colour of a series."""
    return f"var(--c{index % NUM_COLOURS})"


def legend(names: Sequence[str], colours: Sequence[str] | None = None) -> str:
    """Names beside their colours."""
    shades = colours or [colour(index) for index in range(len(names))]
    items = (f'<li><i style="background:{c}"></i>{escape(n)}</li>' for n, c in zip(names, shades, strict=True))
    return f'<ul class="legend">{"".join(items)}</ul>'


def curves(
    series: Sequence[Series], x_label: str, *, percent: bool = False, height: int = 240, whole_x: bool = True
) -> str:
    """Lines over a common x axis, whose marks are whole numbers unless `whole_x` is False."""
    left, right, top, bottom = 52, 12, 10, 36
    finite = []
    for one in series:
        finite += [(x, y) for x, y in one.points if y is not None and math.isfinite(y)]
    if not finite:
        return _empty("no finite values")
    x_ticks, x_low, x_high = ticks(*_range([x for x, _ in finite]), 6, whole=whole_x)
    y_ticks, y_low, y_high = ticks(*_range([y for _, y in finite]), 5)

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x_low) / (x_high - x_low) * (WIDTH - left - right)
        return across, height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = []
    for value in y_ticks:
        _, y_at = at(x_low, value)
        text = f"{100 * value:g}%" if percent else number(value)
        parts.append(f'<path class="grid-line" d="M{left} {y_at:.1f}H{WIDTH - right}"/>')
        parts.append(_text(left - 6, y_at + 4, text, "end"))
    floor = height - bottom
    parts += [_text(at(value, y_low)[0], floor + 16, number(value), "middle") for value in x_ticks]
    parts.append(f'<path class="axis" d="M{left} {height - bottom}H{WIDTH - right}"/>')
    parts.append(_text((left + WIDTH - right) / 2, height - 4, x_label, "middle"))
    for index, one in enumerate(series):
        parts += _curve(one, index, at)
    return _svg(height, parts, ", ".join(one.name for one in series))


def _curve(one: Series, index: int, at: Callable[[float, float], tuple[float, float]]) -> list[str]:
    path, pen_down = [], False
    points = thin_out(one.points)
    for x, y in points:
        if y is None or not math.isfinite(y):
            pen_down = False
            continue
        across, down = at(x, y)
        path.append(f"{'L' if pen_down else 'M'}{across:.1f} {down:.1f}")
        pen_down = True
    dash = DASHES[index // NUM_COLOURS % len(DASHES)]
    style = f'stroke="{colour(index)}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    parts = [f'<path class="line" {style} d="{"".join(path)}"><title>{escape(one.name)}</title></path>']
    if len(points) <= MAX_DOTS:
        for x, y in points:
            if y is not None and math.isfinite(y):
                across, down = at(x, y)
                title = f"<title>{escape(one.name)} {number(x)}: {y:.4g}</title>"
                parts.append(
                    f'<circle cx="{across:.1f}" cy="{down:.1f}" r="2.4" fill="{colour(index)}">{title}</circle>'
                )
    return parts


def matrix(
    counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], axes: tuple[str, str], label: str
) -> str:
    """Square matrix of counts, as of true and predicted classes: the fill is the share of the row.

    Args:
        counts: `[N][N]`.
        rows, columns: names.
        axes: what rows and columns are.
        label: what the picture is.
    """
    size = len(counts)
    row_axis, column_axis = _short(axes[0], 50), _short(axes[1], 50)
    left, top = 62, 40
    cell = (WIDTH - left - 6) / size
    parts = [_text(left + cell * size / 2, 15, column_axis, "middle")]
    middle = top + cell * size / 2
    parts.append(
        f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(row_axis)}</text>'
    )
    font = min(12.0, cell * 0.55)
    for row, line in enumerate(counts):
        total = sum(line)
        y = top + row * cell
        if cell >= NAMED_CELL:
            parts.append(_text(left - 5, y + cell / 2 + 4, _short(rows[row]), "end"))
            parts.append(
                _text(
                    left + (row + 0.5) * cell,
                    top - 6,
                    _short(columns[row], max(1, int(cell / 6))),
                    "middle",
                    size=min(12.0, cell * 0.5),
                )
            )
        for column, count in enumerate(line):
            share = count / total if total else 0.0
            x = left + column * cell
            place = f"{axes[0]} {rows[row]}, {axes[1]} {columns[column]}"
            title = f"<title>{escape(place)}: {count} ({share:.1%})</title>"
            shade = "var(--c0)" if row == column else "var(--c5)"  # right and wrong, as of predictions
            box = f'x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}"'
            fill = f'fill="{shade}" fill-opacity="{share:.3f}"'
            parts.append(f'<rect {box} {fill} stroke="var(--grid)">{title}</rect>')
            if count and cell >= COUNTED_CELL:
                kind = "full" if share > 0.55 else "strong"
                parts.append(_text(x + cell / 2, y + cell / 2 + font * 0.36, str(count), "middle", kind, font))
    return _svg(top + cell * size + 6, parts, label)


def raster(spikes: Sequence[Sequence[Sequence[int]]], labels: Sequence[str], label: str) -> str:
    """Spikes `[S][T][K]`: samples side by side, a row per neuron, a tick per spike; per few steps, where T is large."""
    num_samples, num_steps, num_neurons = len(spikes), len(spikes[0]), len(spikes[0][0])
    stride = math.ceil(num_samples * num_steps / MAX_COLUMNS)
    left, right, top, bottom = 34, 8, 24, 24
    height = top + bottom + max(60, min(200, 5 * num_neurons))
    column = (WIDTH - left - right) / (num_samples * num_steps)
    row = (height - top - bottom) / num_neurons
    extra = f"; a mark per {stride} steps" if stride > 1 else ""
    parts = _samples(num_samples, num_steps, column, left, top, height - bottom, labels, extra)
    marks = []
    for sample, steps in enumerate(spikes):
        for step in range(0, num_steps, stride):
            neurons = [any(fired) for fired in zip(*steps[step : step + stride], strict=True)]
            x = left + (sample * num_steps + min(step + stride / 2, num_steps - 0.5)) * column
            marks += [
                f"M{x:.1f} {top + k * row + row * 0.1:.1f}v{row * 0.8:.1f}" for k, fired in enumerate(neurons) if fired
            ]
    middle = (top + height - bottom) / 2
    parts.append(f'<path class="spikes" d="{"".join(marks)}"/>')
    if not marks:
        parts.append(_text((left + WIDTH - right) / 2, middle, "no spike", "middle"))
    parts.append(f'<text transform="translate(17 {middle:.0f}) rotate(-90)" text-anchor="middle">neuron</text>')
    return _svg(height, parts, label)


def traces(
    v: Sequence[Sequence[Sequence[float]]],
    spikes: Sequence[Sequence[Sequence[int]]],
    names: Sequence[str],
    labels: Sequence[str],
    threshold: float | None,
    bounds: Sequence[tuple[float, float]],
    label: str,
) -> str:
    """Membrane potentials `[S][T][K]`, a lane per neuron, with a mark above each spike."""
    num_samples, num_steps = len(v), len(v[0])
    left, right, top, bottom, lane, gap = 58, 8, 24, 24, 62, 12
    height = top + bottom + len(names) * (lane + gap)
    column = (WIDTH - left - right) / (num_samples * num_steps)
    parts = _samples(num_samples, num_steps, column, left, top, height - bottom, labels)
    for k, name in enumerate(names):
        low, high = bounds[k]
        floor = top + k * (lane + gap) + gap + lane

        def down(value: float, low: float = low, high: float = high, floor: float = floor) -> float:
            inside = min(max(value, low), high) if math.isfinite(value) else low
            return floor - (inside - low) / (high - low) * (lane - 12)

        parts.append(f'<path class="axis" d="M{left} {floor:.1f}H{WIDTH - right}"/>')
        parts.append(
            _text(left - 4, floor, f"{low:.2g}", "end", size=10)
            + _text(left - 4, floor - lane + 20, f"{high:.2g}", "end", size=10)
        )
        parts.append(_text(left - 4, floor - lane / 2 + 8, name, "end", "strong", 11))
        if threshold is not None and low < threshold <= high:
            parts.append(f'<path class="threshold" d="M{left} {down(threshold):.1f}H{WIDTH - right}"/>')
        line, marks = [], []
        for sample in range(num_samples):
            for step in range(num_steps):
                x = left + (sample * num_steps + step + 0.5) * column
                line.append(f"{'L' if step else 'M'}{x:.1f} {down(v[sample][step][k]):.1f}")
                if spikes[sample][step][k]:
                    marks.append(f"M{x:.1f} {floor - lane + 1:.1f}v7")
        parts.append(f'<path class="line" stroke="var(--c0)" d="{"".join(line)}"/>')
        parts.append(f'<path class="spikes" d="{"".join(marks)}"/>')
    return _svg(height, parts, label)


def bars(
    names: Sequence[str], values: Sequence[Sequence[tuple[float, str]]], label: str, *, percent: bool = False
) -> str:
    """Horizontal bars; per name several, each `(value, colour)`."""
    high = max((value for group in values for value, _ in group), default=0.0) or 1.0
    left, right, thick = 128, 74, 13
    parts, y = [], 4.0
    for name, group in zip(names, values, strict=True):
        parts.append(_text(left - 8, y + thick * len(group) / 2 + 4, _tail(name, 13), "end", "strong"))
        for value, shade in group:
            width = value / high * (WIDTH - left - right)
            parts.append(
                f'<rect x="{left}" y="{y:.1f}" width="{width:.1f}" height="{thick - 2}" rx="2" fill="{shade}"/>'
            )
            parts.append(
                _text(
                    left + width + 5,
                    y + thick - 3,
                    f"{value:.1%}" if percent else f"{value:.3g}",
                    "start",
                    "strong",
                    11,
                )
            )
            y += thick
        y += 10
    return _svg(y, parts, label)


def histogram(
    values: Sequence[float | None], edges: Sequence[float], label: str, *, percent: bool = False, height: int = 240
) -> str:
    """Upright bars over ranges of values, each as wide as its range; none where there is no value."""
    left, right, top, bottom = 52, 12, 10, 24
    x_ticks, _, _ = ticks(edges[0], edges[-1], 6)
    y_ticks, _, y_high = ticks(0.0, max([value for value in values if value is not None], default=0.0) or 1.0, 5)
    floor = height - bottom

    def across(x: float) -> float:
        return left + (x - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - left - right)

    parts = []
    for mark in y_ticks:
        y = floor - mark / y_high * (floor - top)
        text = f"{100 * mark:g}%" if percent else number(mark)
        parts.append(f'<path class="grid-line" d="M{left} {y:.1f}H{WIDTH - right}"/>')
        parts.append(_text(left - 6, y + 4, text, "end"))
    for value, low, high in zip(values, edges, edges[1:], strict=False):
        if value is None:
            continue
        size = value / y_high * (floor - top)
        title = f"<title>{number(low)} to {number(high)}: {value:.4g}</title>"
        box = f'x="{across(low):.2f}" y="{floor - size:.1f}" height="{size:.1f}"'
        wide = max(across(high) - across(low) - 0.6, 0.3)
        parts.append(f'<rect {box} width="{wide:.2f}" fill="var(--c0)">{title}</rect>')
    parts.append(f'<path class="axis" d="M{left} {floor}H{WIDTH - right}"/>')
    inside = [mark for mark in x_ticks if edges[0] <= mark <= edges[-1]]
    parts += [_text(across(mark), floor + 16, number(mark), "middle") for mark in inside]
    return _svg(height, parts, label)


def stacks(names: Sequence[str], shares: Sequence[Sequence[tuple[float, str, str]]], label: str) -> str:
    """One full bar per name, divided into `(share, colour, title)`."""
    left, right, thick = 128, 8, 20
    parts, y = [], 4.0
    for name, line in zip(names, shares, strict=True):
        parts.append(_text(left - 8, y + thick / 2 + 4, _tail(name, 13), "end", "strong"))
        x = float(left)
        for share, shade, title in line:
            width = share * (WIDTH - left - right)
            tip = f"<title>{escape(title)}: {share:.1%}</title>"
            box = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{thick}"'
            parts.append(f'<rect {box} fill="{shade}">{tip}</rect>')
            if width > 34:
                parts.append(_text(x + width / 2, y + thick / 2 + 4, f"{share:.0%}", "middle", "full", 11))
            x += width
        y += thick + 8
    return _svg(y, parts, label)


def thin_out(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most `MAX_POINTS`: of each stretch its lowest and its highest, so that no peak is lost."""
    if len(points) <= MAX_POINTS:
        return list(points)
    stretch = math.ceil(len(points) / (MAX_POINTS // 2))
    kept: list[tuple[float, float | None]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        known = [point for point in part if point[1] is not None and math.isfinite(point[1])]
        if known:
            kept += sorted({min(known, key=_height), max(known, key=_height)})
        else:
            kept.append(part[0])
    return kept


def ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> tuple[list[float], float, float]:
    """Round numbers from at or below `low` to at or above `high`, and the two ends."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):  # one value, as far as a picture can tell
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    rough = (high - low) / max(1, wanted - 1)
    scale = 10.0 ** math.floor(math.log10(rough))
    # The factors in front of `rough` and beside the quotients keep rounding from adding a tick.
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * 0.999)
    if whole and step < 10:  # from 10 on every step is whole
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if whole and first < 0 <= low:
        first = 0
    values = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    if whole:  # an x axis ends with the data, not with the next round number
        inside = [value for value in values if low <= value <= high]
        if not inside or inside[0] - low > step / 2:  # the first step would be without a mark
            inside = [low, *inside]
        return inside, low, high
    return values, values[0], values[-1]


def number(value: float) -> str:
    """A number for an axis."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


def _samples(
    count: int,
    num_steps: int,
    column: float,
    left: float,
    top: float,
    floor: float,
    labels: Sequence[str],
    extra: str = "",
) -> list[str]:
    """Ends of samples, their labels above, and the axis of steps."""
    parts = [f'<path class="axis" d="M{left} {floor:.1f}H{left + count * num_steps * column:.1f}"/>']
    for sample in range(count):
        x = left + sample * num_steps * column
        if sample:
            parts.append(f'<path class="cut" d="M{x:.1f} {top}V{floor:.1f}"/>')
        room = int(num_steps * column / 7)
        if room:
            parts.append(
                _text(x + num_steps * column / 2, top - 7, _short(labels[sample], max(room, 1)), "middle", size=11)
            )
    text = f"{num_steps} steps each, samples side by side" if count > 1 else f"step 0 to {num_steps - 1}"
    parts.append(_text(left + count * num_steps * column / 2, floor + 16, text + extra, "middle"))
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _height(point: tuple[float, float | None]) -> float:
    return point[1] if point[1] is not None else 0.0


def _short(text: str, length: int = 7) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def _tail(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", size: float | None = None) -> str:
    style = (f' class="{kind}"' if kind else "") + (f' font-size="{size / 12:.3g}em"' if size else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"


def _empty(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
