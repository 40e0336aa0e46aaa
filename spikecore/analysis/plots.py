"""Pictures: spike rasters, membrane potentials, rates, feature maps, surrogates.

Every function draws into `ax` where one is given and returns its figure, which a notebook shows and
`figure.savefig("x.svg")` writes. No window is opened and no global state of matplotlib is touched; matplotlib is
imported by the first call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.analysis.rates import LayerRates
from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces.surrogate import Surrogate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPIKE, TRACE, LIMIT = "#1f4e79", "#2a7f62", "#b03a2e"


def raster(spikes: Tensor, sample: int = 0, *, rates: bool = False, ax: Axes | None = None) -> Figure:
    """One mark per spike: time to the right, neurons upwards.

    Args:
        spikes: `[T, N]`, or `[T, B, ...]` of which `sample` is drawn, its neurons in one row. Not 0 is a spike.
        sample: place in the batch.
        rates: also the rate of each neuron, at the right; not together with `ax`.

    Raises:
        ShapeError: fewer than two axes.
        OptionError: no such sample; `rates` together with `ax`.
    """
    train = _sample(spikes, sample, "raster")
    if rates and ax is not None:
        raise OptionError("raster: rates=True draws two axes and makes its own figure; leave ax out")
    if rates:
        figure = _figure((7.0, 3.0))
        ax, side = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
        side.barh(range(train.shape[1]), (train != 0).double().mean(0).tolist(), color=SPIKE, height=0.8)
        side.set(xlabel="rate", xlim=(0, 1))
    else:
        figure, ax = _axes(ax, (6.0, 3.0))
    steps, neurons = (part.tolist() for part in (train != 0).nonzero(as_tuple=True))
    size = max(4.0, min(80.0, 4000 / train.shape[1]))  # of a mark: the smaller, the more rows there are
    ax.scatter(steps, neurons, marker="|", s=size, color=SPIKE)
    ax.set(xlabel="step", ylabel="neuron", xlim=(-0.5, len(train) - 0.5), ylim=(-0.5, train.shape[1] - 0.5))
    return figure


def membrane(
    v: Tensor,
    v_threshold: float | None = 1.0,
    *,
    spikes: Tensor | None = None,
    v_reset: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The potential of one neuron over time, its threshold, and marks where it fired.

    Args:
        v: `[T]`, e.g. `neuron.recorded["v"][:, 0, 3]` (after the reset).
        v_threshold: a dashed line; None for none.
        spikes: `[T]`; not 0 is a spike.
        v_reset: a dotted line.

    Raises:
        ShapeError: `v` or `spikes` is not `[T]`, or they differ.
    """
    if v.dim() != 1 or (spikes is not None and spikes.shape != v.shape):
        got = "" if spikes is None else f" and spikes {tuple(spikes.shape)}"
        raise ShapeError(
            f"membrane draws one neuron: v [T] (and spikes [T]), got v {tuple(v.shape)}{got}: "
            "pick a sample and a neuron, v[:, 0, 3]"
        )
    figure, ax = _axes(ax, (6.0, 2.5))
    ax.plot(_list(v), color=TRACE, label="v")
    if v_threshold is not None:
        ax.axhline(v_threshold, color=LIMIT, linestyle="--", linewidth=1, label="v_threshold")
    if v_reset is not None:
        ax.axhline(v_reset, color="gray", linestyle=":", linewidth=1, label="v_reset")
    if spikes is not None:
        for step in (spikes != 0).nonzero().flatten().tolist():
            ax.axvline(step, color=SPIKE, linewidth=1, alpha=0.6)
    ax.set(xlabel="step", ylabel="v")
    ax.legend(loc="upper right", fontsize="small")
    return figure


def rate_bars(rates: Mapping[str, float | LayerRates], *, ax: Axes | None = None) -> Figure:
    """One bar per layer; above it, where known, the shares of silent and saturated neurons.

    Args:
        rates: layer → rate, or a meter's `rates`.

    Raises:
        OptionError: `rates` is empty.
    """
    if not rates:
        raise OptionError("rate_bars: there is nothing to draw, rates is empty")
    figure, ax = _axes(ax, (max(4.0, 0.9 * len(rates)), 3.0))
    heights = [rate.rate if isinstance(rate, LayerRates) else float(rate) for rate in rates.values()]
    bars = ax.bar(list(rates), heights, color=SPIKE)
    shares = []
    for rate in rates.values():
        if isinstance(rate, LayerRates):
            shares.append(f"{rate.silent:.0%} silent\n{rate.saturated:.0%} saturated")
        else:
            shares.append("")
    ax.bar_label(bars, shares, fontsize="x-small", padding=2)
    ax.set(ylabel="spikes per neuron and step", ylim=(0, None))
    ax.margins(y=0.25)
    return figure


def heatmap(values: Tensor, sample: int = 0, *, label: str = "", ax: Axes | None = None) -> Figure:
    """Values of many neurons over time as colours: time to the right, neurons upwards.

    Args:
        values: `[T, N]`, or `[T, B, ...]` of which `sample` is drawn.
        sample: place in the batch.
        label: of the colour bar.

    Raises:
        ShapeError: fewer than two axes.
        OptionError: no such sample.
    """
    grid = _sample(values, sample, "heatmap")
    figure, ax = _axes(ax, (6.0, 3.0))
    image = ax.imshow(_list(grid.T), aspect="auto", origin="lower", interpolation="nearest", cmap="viridis")
    figure.colorbar(image, ax=ax, label=label)
    ax.set(xlabel="step", ylabel="neuron")
    return figure


def feature_maps(maps: Tensor, *, columns: int | None = None) -> Figure:
    """The channels of one sample as images, side by side, on one scale.

    Args:
        maps: `[C, H, W]`; or `[T, C, H, W]`, whose mean over time is drawn.
        columns: images per row; about square by default.

    Raises:
        ShapeError: another number of axes, or no channel.
        OptionError: `columns` below 1.
    """
    if maps.dim() not in (3, 4) or not maps.numel():
        raise ShapeError(
            f"feature_maps draws one sample [C, H, W] or [T, C, H, W], got {tuple(maps.shape)}: pick it from the "
            "batch, maps[:, 0]"
        )
    if columns is not None and columns < 1:
        raise OptionError(f"feature_maps needs columns >= 1, got {columns}")
    images = maps.detach().double().cpu()
    images = images.mean(0) if images.dim() == 4 else images
    num = len(images)
    columns = min(num, columns or math.ceil(math.sqrt(num)))
    rows = math.ceil(num / columns)
    figure = _figure((1.2 * columns + 0.8, 1.2 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    low, high = float(images.min()), float(images.max())
    for place, ax in enumerate(grid.flat):
        ax.set_axis_off()
        if place < num:
            shown = ax.imshow(images[place].tolist(), vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
            ax.set_title(str(place), fontsize="x-small", pad=2)
    figure.colorbar(shown, ax=grid.ravel().tolist())
    return figure


def surrogate_curves(surrogate: Surrogate, *, limit: float = 2.0, ax: Axes | None = None) -> Figure:
    """A surrogate: the spike Θ(u), the derivative g'(u), and the primitive g(u) where it is declared.

    Args:
        surrogate: e.g. `nn.ATan(alpha=3.0)`.
        limit: u runs from -limit to limit.

    Raises:
        OptionError: `limit` is not above 0.
    """
    if not limit > 0:
        raise OptionError(f"surrogate_curves needs limit > 0, got {limit!r}")
    figure, ax = _axes(ax, (4.2, 2.6))
    u = torch.linspace(-limit, limit, 401, dtype=torch.float64)
    ax.plot(_list(u), _list(surrogate.forward(u, surrogate.config)), color="gray", linewidth=1, label="Θ(u)")
    if surrogate.capabilities.primitive:
        ax.plot(_list(u), _list(surrogate.primitive(u, surrogate.config)), color=TRACE, linestyle="--", label="g(u)")
    (curve,) = ax.plot(_list(u), _list(surrogate.derivative(u, surrogate.config)), color=SPIKE, label="g'(u)")
    curve.set_gid("derivative")
    ax.set(xlabel="u = h - v_threshold")
    ax.legend(loc="upper left", fontsize="small")
    return figure


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    if ax is None:
        figure = _figure(size)
        return figure, figure.subplots()
    return ax.figure.figure, ax  # of a subfigure, the whole


def _list(values: Tensor) -> Any:
    return values.detach().double().cpu().tolist()


def _sample(values: Tensor, sample: int, name: str) -> Tensor:
    first_of_neurons = 2 if values.dim() > 2 else 1  # `[T, B, ...]`, or `[T, N]`
    if values.dim() < 2 or not len(values) or not values.shape[first_of_neurons:].numel():
        raise ShapeError(f"{name} draws [T, N] or [T, B, ...] with steps and neurons, got {tuple(values.shape)}")
    values = values.detach().cpu()
    if values.dim() == 2:
        return values
    if not -values.shape[1] <= sample < values.shape[1]:
        raise OptionError(f"{name}: there is no sample {sample} in a batch of {values.shape[1]}")
    return values[:, sample].flatten(1)
