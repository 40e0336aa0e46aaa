"""What a trainer may show besides its metrics: `context.show("weights", Image(pixels))`.

The run keeps the latest value of each name in its directory and in its checkpoints, and the report draws it.

    Curve       lines over a common x axis
    Image       one picture
    Animation   pictures one after another
    Table       rows of text and numbers, or a square matrix of counts
    Histogram   a bar per range of values, or per category

Each checks what it is given, so a wrong value is an error in the line that makes it. None of them imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from spikecore.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

MAX_SERIES = 24
MAX_POINTS = 10_000
MAX_PIXELS = 1_000_000
MAX_FRAME_PIXELS = 4_000_000
MAX_CELLS = 10_000
MAX_BARS = 1_000
MAX_TEXT = 2_000
Cell: TypeAlias = "str | int | float | None"


@dataclass(frozen=True)
class Curve:
    """Lines over a common x axis: N points in each of S series.

    Values are drawn as they are, on one y axis: give all series of a curve in one unit, and name it in the caption or
    in the names of the series (`rate_hz`).

    Args:
        series: name → `[N]`, its y values in the order of x: a list, an array or a tensor of one axis; None leaves a
            gap. 1 to `MAX_SERIES` series, all of one length N, 1 to `MAX_POINTS`.
        x: `[N]`, finite, in the unit that `x_label` names; () for 0, 1, … N - 1.
        x_label: below the x axis, with the unit where it has one: `step`, `time (ms)`.
        caption: a sentence below the title.

    Raises:
        ContractError: lengths differ, a number is not finite, or there are too many series or points.

    Example:
        >>> rates = Curve({"conv1": [0.1, 0.2, None], "conv2": [0.3, 0.3, 0.4]}, x=[10, 20, 30], x_label="time (ms)")
        >>> rates.x, rates.series["conv1"]
        ((10.0, 20.0, 30.0), (0.1, 0.2, None))
    """

    kind: ClassVar[str] = "curve"
    series: Mapping[str, Sequence[float | None]]
    x: Sequence[float] = ()
    x_label: str = "step"
    caption: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.series, Mapping):
            raise ContractError(
                "Curve: series must be a dict, name -> values, as in Curve({'loss': [3.0, 2.0, 1.0]}), got "
                f"{type(self.series).__name__}"
            )
        for name, values in self.series.items():
            _require_list(values, f"Curve: series {name!r}")
        _require_list(self.x, "Curve: x")
        _expect(0 < len(self.series) <= MAX_SERIES, f"Curve: 1 to {MAX_SERIES} series, got {len(self.series)}")
        lengths = {len(values) for values in self.series.values()}
        _expect(len(lengths) == 1, f"Curve: series of one length, got lengths {sorted(lengths)}")
        length = max(lengths)
        _expect(1 <= length <= MAX_POINTS, f"Curve: 1 to {MAX_POINTS} points in a series, got {length}")
        x = [_finite(value, "Curve: x") for value in (self.x if len(self.x) else range(length))]
        _expect(len(x) == length, f"Curve: x has {len(x)} values and each series {length}: give one x per value")
        series = {}
        for name, values in self.series.items():
            series[_text(name, "Curve: the name of a series")] = tuple(
                None if value is None else _finite(value, f"Curve: series {name!r}") for value in values
            )
        _text(self.x_label, "Curve: x_label")
        _text(self.caption, "Curve: caption")
        object.__setattr__(self, "series", series)
        object.__setattr__(self, "x", tuple(x))


@dataclass(frozen=True, eq=False)
class Image:
    """One picture.

    Args:
        pixels: grey `[H, W]` or `[1, H, W]`, or red, green and blue `[3, H, W]`; uint8 0 .. 255, or floats 0 .. 1. Kept
            as uint8, on the CPU.
        caption: a sentence below the title.

    Raises:
        ContractError: another shape or dtype, a value outside its range, or more than `MAX_PIXELS` pixels.
    """

    kind: ClassVar[str] = "image"
    pixels: Tensor
    caption: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _pixels(self.pixels, "Image", "[H, W], [1, H, W] or [3, H, W]", (2, 3)))
        num_pixels = self.pixels.shape[-1] * self.pixels.shape[-2]
        _expect(num_pixels <= MAX_PIXELS, f"Image: at most {MAX_PIXELS} pixels, got {num_pixels}: make it smaller")
        _text(self.caption, "Image: caption")


@dataclass(frozen=True, eq=False)
class Animation:
    """Pictures one after another, again and again.

    Args:
        frames: N pictures, grey `[N, H, W]` or `[N, 1, H, W]`, or in colour `[N, 3, H, W]`; values as of `Image`.
        frames_per_s: how fast, above 0 and at most 100.
        caption: a sentence below the title.

    Raises:
        ContractError: as of `Image`; or more than `MAX_FRAME_PIXELS` pixels in all frames together.
    """

    kind: ClassVar[str] = "animation"
    frames: Tensor
    frames_per_s: float = 10.0
    caption: str = ""

    def __post_init__(self) -> None:
        frames = _pixels(self.frames, "Animation", "[N, H, W], [N, 1, H, W] or [N, 3, H, W]", (3, 4))
        object.__setattr__(self, "frames", frames)
        num_pixels = frames.shape[0] * frames.shape[-1] * frames.shape[-2]
        limit = f"Animation: at most {MAX_FRAME_PIXELS} pixels in all frames"
        _expect(num_pixels <= MAX_FRAME_PIXELS, f"{limit}, got {num_pixels}: show fewer or smaller frames")
        speed = _finite(self.frames_per_s, "Animation: frames_per_s")
        _expect(0 < speed <= 100, f"Animation: frames_per_s must be above 0 and at most 100, got {speed:g}")
        _text(self.caption, "Animation: caption")


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers.

    Args:
        head: names of the columns.
        rows: as many cells each; a number that is not finite is refused, None is an empty cell.
        is_matrix: drawn as a picture, each cell shaded by its share of its row: the first column names the rows, the
            others hold counts, as many as there are rows; `head[0]` says what rows and columns are, as in
            "true / predicted". The diagonal is what is right.
        caption: a sentence below the title.

    Raises:
        ContractError: rows of another length, another type of cell, more than `MAX_CELLS` cells; or no matrix.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_matrix: bool = False
    caption: str = ""

    def __post_init__(self) -> None:
        _require_list(self.head, "Table: head")
        _require_list(self.rows, "Table: rows")
        for number, row in enumerate(self.rows):
            _require_list(row, f"Table: row {number}")
        head = tuple(_text(name, "Table: a name in head") for name in self.head)
        _expect(bool(head), "Table: at least one column")
        num_cells = len(head) * len(self.rows)
        _expect(num_cells <= MAX_CELLS, f"Table: at most {MAX_CELLS} cells, got {num_cells}: show the rows that matter")
        rows = []
        for number, row in enumerate(self.rows):
            _expect(len(row) == len(head), f"Table: row {number} has {len(row)} cells, head has {len(head)}")
            rows.append(tuple(_cell(value, f"Table: row {number}") for value in row))
        _text(self.caption, "Table: caption")
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "rows", tuple(rows))
        if self.is_matrix:
            self._check_matrix()

    def _check_matrix(self) -> None:
        size = len(self.rows)
        square = 1 <= size == len(self.head) - 1
        _expect(square, f"Table: a matrix of {size} rows has 1 + {size} columns, got {len(self.head)}")
        for row in self.rows:
            _expect(isinstance(row[0], str), f"Table: the first cell of a matrix row is its name, got {row[0]!r}")
            for count in row[1:]:
                is_count = isinstance(count, int) and count >= 0
                _expect(is_count, f"Table: a matrix holds counts, 0 or more, got {count!r} in the row {row[0]!r}")


@dataclass(frozen=True)
class Histogram:
    """A bar per range of values, or per category.

    Args:
        values: heights, 0 or more; None where there is no value.
        edges: ends of the ranges, rising, one more than values; () with `names`.
        names: one per value; () with `edges`.
        is_share: values are shares 0 .. 1, written as percent.
        caption: a sentence below the title.

    Raises:
        ContractError: neither or both of edges and names, another number of them, a value that is negative, not finite
            or above 1 as a share, or more than `MAX_BARS` bars.
    """

    kind: ClassVar[str] = "histogram"
    values: Sequence[float | None]
    edges: Sequence[float] = ()
    names: Sequence[str] = ()
    is_share: bool = False
    caption: str = ""

    def __post_init__(self) -> None:
        for field in ("values", "edges", "names"):
            _require_list(getattr(self, field), f"Histogram: {field}")
        count = len(self.values)
        _expect(1 <= count <= MAX_BARS, f"Histogram: 1 to {MAX_BARS} values, got {count}")
        _expect(bool(len(self.edges)) != bool(len(self.names)), "Histogram: give either edges or names")
        values = tuple(None if value is None else _finite(value, "Histogram: values") for value in self.values)
        _expect(all(value is None or value >= 0 for value in values), "Histogram: values must be 0 or more")
        if self.is_share:
            _expect(all(value is None or value <= 1 for value in values), "Histogram: shares must be at most 1")
        edges = tuple(_finite(edge, "Histogram: edges") for edge in self.edges)
        names = tuple(_text(name, "Histogram: a name") for name in self.names)
        if edges:
            _expect(len(edges) == count + 1, f"Histogram: {count} values have {count + 1} edges, got {len(edges)}")
            rising = all(low < high for low, high in pairwise(edges))
            _expect(rising, "Histogram: edges must rise")
        else:
            _expect(len(names) == count, f"Histogram: one name per value, got {len(names)} for {count}")
        _text(self.caption, "Histogram: caption")
        for field, value in (("values", values), ("edges", edges), ("names", names)):
            object.__setattr__(self, field, value)


Shown: TypeAlias = Curve | Image | Animation | Table | Histogram
SHOWN: tuple[type[Shown], ...] = (Curve, Image, Animation, Table, Histogram)


def _expect(is_right: bool, text: str) -> None:
    if not is_right:
        raise ContractError(text)


def _require_list(value: object, what: str) -> None:
    """A list, tuple, array or tensor with an axis; a string is one value."""
    is_list = (
        hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes | Mapping)
    )
    if not is_list or getattr(value, "ndim", 1) == 0:
        raise ContractError(f"{what} must be a list, as in [1.0, 2.0], got {value!r:.80}")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ContractError(f"{what} must be a string, got {value!r}")
    _expect(len(value) <= MAX_TEXT, f"{what} has {len(value)} characters; at most {MAX_TEXT} are kept")
    return value


def _finite(value: object, what: str) -> float:
    # A bool is an int to Python, and a tensor or numpy number has `item`.
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ContractError(f"{what} must hold numbers, got {value!r}")
    _expect(math.isfinite(number), f"{what} must hold finite numbers, got {number!r}; write None for no value")
    return float(number)


def _cell(value: object, what: str) -> Cell:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, str):
        return _text(value, what)
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, int):
        return number
    return _finite(number, what)


def _pixels(value: Tensor, what: str, shapes: str, num_axes: tuple[int, int]) -> Tensor:
    """The pixels as uint8 on the CPU, a copy."""
    if not hasattr(value, "is_floating_point"):
        raise ContractError(f"{what}: takes a tensor {shapes}, got {type(value).__name__}; torch.from_numpy makes one")
    shape = tuple(value.shape)
    # With its longer shape a picture has an axis of channels in front of its rows.
    is_right = len(shape) == num_axes[0] or (len(shape) == num_axes[1] and shape[-3] in (1, 3))
    _expect(is_right and 0 not in shape, f"{what}: takes a tensor {shapes}, got {list(shape)}")
    pixels = value.detach().cpu()
    if not pixels.is_floating_point():
        is_byte = str(pixels.dtype) == "torch.uint8"
        _expect(is_byte, f"{what}: takes uint8 0 .. 255 or floats 0 .. 1, got {pixels.dtype}; convert it with .float()")
        return pixels.clone()
    _expect(bool(pixels.isfinite().all()), f"{what}: holds values that are not finite")
    low, high = float(pixels.min()), float(pixels.max())
    _expect(low >= 0 and high <= 1, f"{what}: floats must lie in 0 .. 1, got {low:.4g} .. {high:.4g}; scale them")
    return (pixels.float() * 255).round().byte()
