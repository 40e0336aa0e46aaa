"""Plugins that are known but perhaps not installed: what to type to get them.

Nobody owns these names on a public index yet, so the line installs from a checkout; installing an unknown name from an
index would be an invitation to whoever registers it first.
"""

from __future__ import annotations

KNOWN: dict[tuple[str, str], str] = {
    ("neuron", "izhikevich"): "neuron-zoo",
    ("neuron", "eif"): "neuron-zoo",
    **{
        ("encoder", name): "layer-zoo"
        for name in ("periodic", "weighted_phase", "population", "gaussian_tuning", "rank_order")
    },
    ("neuron", "synapse_filter"): "layer-zoo",
    ("backend", "cpu"): "cpu-backend",
}
PUBLISHED: frozenset[str] = frozenset()


def install_hint(kind: str, name: str) -> str:
    """`It is in the plugin …: pip install …`, or "" for an unknown one."""
    folder = KNOWN.get((kind, name.rpartition(":")[2]))
    if folder is None:
        return ""
    line = f"spikecore-{folder}" if folder in PUBLISHED else f"./plugins/{folder}"
    return f"It is in the plugin {folder}: pip install {line}"
