"""Pictures: the drawn data are the given data."""

import subprocess
import sys

import pytest
import torch
from matplotlib.figure import Figure

from spikecore import nn
from spikecore.analysis import (
    LayerRates,
    feature_maps,
    heatmap,
    membrane,
    raster,
    rate_bars,
    surrogate_curves,
)
from spikecore.errors import OptionError, ShapeError

SPIKES = (torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0)) > 0.6).float()


def drawn(figure, tmp_path):
    """The picture as SVG: drawing it is the test that it can be drawn."""
    path = tmp_path / "figure.svg"
    figure.savefig(path)
    return path.read_text(encoding="utf-8")


def test_a_raster_has_one_mark_per_spike(tmp_path):
    figure = raster(SPIKES, sample=1)
    marks = {tuple(place) for place in figure.axes[0].collections[0].get_offsets().tolist()}
    train = SPIKES[:, 1].flatten(1)
    assert marks == {(float(t), float(n)) for t in range(8) for n in range(4) if train[t, n]}
    assert len(marks) > 5
    drawn(figure, tmp_path)


def test_a_raster_with_rates():
    figure = raster(SPIKES, sample=2, rates=True)
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    assert widths == pytest.approx(SPIKES[:, 2].flatten(1).mean(0).tolist())


def test_a_membrane_shows_threshold_and_spikes(tmp_path):
    lif = nn.LIF(tau=3.0, v_threshold=0.7, record=("v",))
    spikes = lif(torch.full((20, 1, 1), 1.1))
    v = lif.recorded["v"][:, 0, 0]
    figure = membrane(v, 0.7, spikes=spikes[:, 0, 0], v_reset=0.0)
    lines = figure.axes[0].lines
    assert lines[0].get_ydata() == pytest.approx(v.tolist())
    assert list(lines[1].get_ydata()) == [0.7, 0.7]
    assert [line.get_xdata()[0] for line in lines[3:]] == spikes[:, 0, 0].nonzero().flatten().tolist()
    drawn(figure, tmp_path)


def test_rate_bars(tmp_path):
    rates = {"a": 0.25, "b": LayerRates(torch.zeros(2), 0.5, 0.1, 0.2, 2, 10)}
    figure = rate_bars(rates)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.25, 0.5]
    text = drawn(figure, tmp_path)
    assert "<svg" in text
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == ["", "10% silent\n20% saturated"]


def test_a_heatmap_is_the_values(tmp_path):
    figure = heatmap(SPIKES, sample=0, label="s")
    assert torch.equal(torch.tensor(figure.axes[0].images[0].get_array().tolist()), SPIKES[:, 0].flatten(1).T)
    drawn(figure, tmp_path)


@pytest.mark.parametrize("columns", [None, 2, 9])
def test_feature_maps(columns, tmp_path):
    maps = torch.rand(4, 5, 3, 2)
    figure = feature_maps(maps, columns=columns)
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert len(images) == 5
    for channel, image in enumerate(images):
        torch.testing.assert_close(torch.tensor(image.get_array().tolist()), maps.mean(0)[channel])
        assert image.get_clim() == images[0].get_clim()
    drawn(figure, tmp_path)
    assert len([ax for ax in feature_maps(maps[0]).axes if ax.images]) == 5


def test_a_surrogate_is_drawn_as_declared():
    surrogate = nn.ATan(alpha=3.0)
    lines = surrogate_curves(surrogate, limit=1.0).axes[0].lines
    u = torch.tensor(lines[2].get_xdata(), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(surrogate(u).sum(), u)
    assert lines[2].get_ydata() == pytest.approx(slope.tolist())
    smooth = nn.ATan(alpha=3.0, spiking=False)(u.detach())
    assert lines[1].get_ydata() == pytest.approx(smooth.tolist())
    assert len(surrogate_curves(nn.SuperSpike()).axes[0].lines) == 2


def test_pictures_are_drawn_into_given_axes():
    figure = Figure()
    axes = figure.subplots(2, 2)
    assert raster(SPIKES, ax=axes[0, 0]) is figure
    assert membrane(SPIKES[:, 0, 0, 0], ax=axes[0, 1]) is figure
    assert rate_bars({"a": 0.1}, ax=axes[1, 0]) is figure
    part = Figure()
    assert raster(SPIKES, ax=part.subfigures(1, 2)[0].subplots()) is part


def test_wrong_input_is_refused():
    with pytest.raises(ShapeError, match=r"\[T, N\]"):
        raster(torch.zeros(3))
    with pytest.raises(OptionError, match="no sample 3 in a batch of 3"):
        raster(SPIKES, sample=3)
    with pytest.raises(OptionError, match="leave ax out"):
        raster(SPIKES, rates=True, ax=Figure().subplots())
    with pytest.raises(ShapeError, match="one neuron"):
        membrane(torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="spikes"):
        membrane(torch.zeros(3), spikes=torch.zeros(4))
    with pytest.raises(OptionError, match="empty"):
        rate_bars({})
    with pytest.raises(ShapeError, match=r"\[C, H, W\]"):
        feature_maps(torch.zeros(3, 3))
    with pytest.raises(OptionError, match="columns"):
        feature_maps(torch.zeros(3, 3, 3), columns=0)
    with pytest.raises(OptionError, match="limit"):
        surrogate_curves(nn.ATan(), limit=0.0)


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (4, 2, 0), (0, 2, 4)])
def test_nothing_to_draw_is_refused(shape):
    for picture in (raster, heatmap):
        with pytest.raises(ShapeError, match="with steps and neurons"):
            picture(torch.zeros(shape))


def test_matplotlib_is_imported_by_the_first_picture_and_pyplot_never():
    code = (
        "import sys, torch, spikecore.analysis as a\n"
        "assert 'matplotlib' not in sys.modules\n"
        "a.raster(torch.eye(3))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
