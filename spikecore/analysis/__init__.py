"""Looking inside a net: what its layers hold while it runs, how often they fire, and pictures of both.

    with Monitor(net, "output", where=LIF, keep=1) as spikes:
        net(x)
    raster(spikes["layers.1"][0])

Nothing here changes a net: a monitor's hooks are gone when its `with` block ends. matplotlib is imported by the first
picture, not before.
"""

from spikecore.analysis.monitor import Monitor
from spikecore.analysis.plots import (
    feature_maps,
    heatmap,
    membrane,
    raster,
    rate_bars,
    surrogate_curves,
)
from spikecore.analysis.rates import LayerRates, RateMeter, firing_rate
from spikecore.analysis.selection import Where, select_layers

__all__ = [
    "LayerRates",
    "Monitor",
    "RateMeter",
    "Where",
    "feature_maps",
    "firing_rate",
    "heatmap",
    "membrane",
    "raster",
    "rate_bars",
    "select_layers",
    "surrogate_curves",
]
