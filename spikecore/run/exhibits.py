"""The part of a report that lays out what the trainer showed: a figure for each value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from torch import Tensor

from spikecore.analysis import figures, page
from spikecore.analysis.png import data_url, png
from spikecore.interfaces.show import Animation, Curve, Histogram, Image, Shown, Table

MAX_MATRIX = 40
MAX_NAMED_BARS = 60
MAX_OPEN_ROWS = 30


def exhibits(values: Mapping[str, Shown]) -> str:
    """A grid of figures.

    Args:
        values: name → value.
    """
    return page.grid(_figure(index, name, value) for index, (name, value) in enumerate(values.items()))


def _figure(index: int, name: str, value: Shown) -> str:
    draw: Callable[[str, Any], tuple[str, str]] = DRAWN[type(value)]
    picture, remark = draw(name, value)
    caption = " ".join(part for part in (value.caption, remark) if part)
    title = name.replace("_", " ")
    return page.figure(_id(index, name), title[:1].upper() + title[1:], picture, caption)


def _id(index: int, name: str) -> str:
    """Of the figure: readable, and not that of any other one."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"shown-{index}-{word}" if word else f"shown-{index}"


def _curve(name: str, value: Curve) -> tuple[str, str]:
    series: list[figures.Series] = []
    for key, values in value.series.items():
        points = list(zip(value.x, values, strict=True))
        series.append(figures.Series(key, points))
    is_whole = all(x == int(x) for x in value.x)
    picture = figures.curves(series, value.x_label, whole_x=is_whole)
    if len(series) > 1:
        picture = figures.legend(list(value.series)) + picture
    return picture, ""


def _image(name: str, value: Image) -> tuple[str, str]:
    pixels = value.pixels if value.pixels.dim() == 3 else value.pixels.unsqueeze(0)
    return _img(name, pixels.unsqueeze(0), 0.0), f"{pixels.shape[2]} × {pixels.shape[1]} pixels."


def _animation(name: str, value: Animation) -> tuple[str, str]:
    frames = value.frames if value.frames.dim() == 4 else value.frames.unsqueeze(1)
    num_frames, _, height, width = frames.shape
    remark = f"{num_frames} frames of {width} × {height} pixels, {value.frames_per_s:g} per second."
    return _img(name, frames, value.frames_per_s), remark


def _img(name: str, frames: Tensor, frames_per_s: float) -> str:
    """Frames `[N, C, H, W]`, uint8, as a picture that is part of the page."""
    _, channels, height, width = frames.shape
    rows = frames.permute(0, 2, 3, 1).contiguous()
    file = png([frame.numpy().tobytes() for frame in rows], width, height, channels, frames_per_s)
    size = f'width="{width}" height="{height}"'
    # A small picture is enlarged, and its pixels are to stay squares.
    kind = "pixels" if width < figures.WIDTH else "photo"
    return f'<img class="{kind}" {size} alt="{escape(name)}" src="{data_url(file)}">'


def _table(name: str, value: Table) -> tuple[str, str]:
    if value.is_matrix and len(value.rows) <= MAX_MATRIX:
        return _matrix(name, value)

    text = page.table(value.head, [_without_none(row) for row in value.rows])
    if len(value.rows) <= MAX_OPEN_ROWS:
        return text, ""
    return page.collapsible(f"{len(value.rows)} rows", text), ""


def _without_none(row: Sequence[Any]) -> list[Any]:
    """The cells of a row; an unknown one is empty."""
    return ["" if cell is None else cell for cell in row]


def _matrix(name: str, value: Table) -> tuple[str, str]:
    first, _, second = value.head[0].partition("/")  # the heading of the corner names both axes
    rows: list[str] = []
    counts: list[list[int]] = []
    for title, *cells in value.rows:
        rows.append(str(title))
        counts.append([int(cell or 0) for cell in cells])
    axes = (first.strip(), second.strip())
    picture = figures.matrix(counts, rows, value.head[1:], axes, name.replace("_", " "))
    return picture, "Blue: right; red: wrong; the deeper, the larger the share of its row."


def _histogram(name: str, value: Histogram) -> tuple[str, str]:
    if value.edges:
        return figures.histogram(value.values, value.edges, name, percent=value.is_share), ""
    heights = value.values[:MAX_NAMED_BARS]
    groups = [_bar(height) for height in heights]
    remark = ""
    if len(value.names) > MAX_NAMED_BARS:
        remark = f"The first {MAX_NAMED_BARS} of {len(value.names)}."
    return figures.bars(value.names[:MAX_NAMED_BARS], groups, name, percent=value.is_share), remark


def _bar(height: float | None) -> list[tuple[float, str]]:
    """The bar of a category, with its colour; an unknown height has none."""
    return [] if height is None else [(height, "var(--c0)")]


DRAWN: dict[type[Shown], Callable[[str, Any], tuple[str, str]]] = {
    Curve: _curve,
    Image: _image,
    Animation: _animation,
    Table: _table,
    Histogram: _histogram,
}
"""Kind of value → its picture, and what is to be said of it."""
