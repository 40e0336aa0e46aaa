"""Writes the reference of this plugin: neurons.md from the docstrings, and a drawing per neuron.

    python plugins/neuron-zoo/docs/make.py [FOLDER]

A drawing shows the answer to a step, a ramp and noise: the input above, states and spikes below. The same versions of
spikecore, torch and matplotlib write the same bytes.
"""

from __future__ import annotations

import inspect
import io
import math
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spikecore.registry import components, create, load

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "spikecore", "font.size": 8, "font.sans-serif": ["DejaVu Sans"]}
NUM_STEPS = 100
REGULAR_SPIKING = {"tau": 100.0, "a0": 0.7, "v_rest": -60.0, "v_c": -40.0, "v_threshold": 35.0, "tau_w": 1 / 0.03}
REGULAR_SPIKING |= {"a": -2.0, "b": 100.0, "v_reset": -50.0}
SHOWN: dict[str, tuple[dict[str, Any], float]] = {
    "qif": ({"tau": 5.0}, 0.8),
    "eif": ({"tau": 5.0, "delta_T": 0.3}, 0.8),
    "adex": ({"tau": 5.0, "delta_T": 0.3, "tau_w": 30.0, "b": 0.3}, 1.0),
    "izhikevich": (REGULAR_SPIKING, 250.0),
    "alif": ({"tau": 5.0, "tau_a": 30.0, "beta": 0.2}, 2.0),
    "klif": ({"tau": 5.0, "k": 1.4}, 0.8),
    "glif": ({"alpha": 0.8, "gamma": 0.7, "tau": 0.8}, 0.25),
    "timed_glif": ({"num_steps": NUM_STEPS, "alpha": 0.8, "gamma": 0.7, "tau": 0.8}, 0.25),
    "liaf": ({"tau": 5.0}, 1.5),
    "ilif": ({}, 1.3),
    "floor_lif": ({"decay": 0.8, "v_min": -1.0}, 0.9),
    "ternary_if": ({}, 0.15),
    "ternary_lif": ({"tau": 5.0}, 1.3),
    "resonate_and_fire": ({"b": -0.05, "omega": 0.35}, 0.4),
    "psn": ({"num_steps": NUM_STEPS}, 3.0),
    "masked_psn": ({"num_steps": NUM_STEPS, "order": 4, "masking": 1.0}, 12.0),
    "sliding_psn": ({"order": 4}, 0.8),
    "mpbn_lif": ({"num_features": 1, "tau": 5.0}, 0.35),
    "ilc_if": ({"num_groups": 1, "group_size": 1}, 0.3),
    "ilc_lif": ({"num_groups": 1, "group_size": 1}, 0.4),
    "ilc_cuba_lif": ({"num_groups": 1, "group_size": 1}, 0.1),
    "noisy_cuba_lif": ({"num_features": 1, "sigma": 0.1}, 0.1),
    "noisy_ilc_cuba_lif": ({"num_groups": 1, "group_size": 1, "sigma": 0.1}, 0.1),
}
"""Name → options, and the height of the step. All other options are the defaults."""


def inputs(height: float) -> dict[str, Tensor]:
    """Step, ramp and noise `[T, 1, 1]`."""
    t = torch.arange(NUM_STEPS, dtype=torch.float64)
    noise = torch.randn(NUM_STEPS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    currents = {
        "step": height * (t >= 10),
        "ramp": height * 2 * (t - 10).clamp(min=0) / NUM_STEPS,
        "noise": height * (0.2 + 1.3 * noise),
    }
    return {name: x.double().reshape(-1, 1, 1) for name, x in currents.items()}


def response(name: str, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and recorded states, `[T]` each; the random weights of a neuron are always the same."""
    options, _ = SHOWN[name]
    torch.manual_seed(0)
    record = {"record": tuple(load("neuron", name).state)} if load("neuron", name).capabilities.elementwise else {}
    neuron = create("neuron", name, **options, **record).double()
    for key, parameter in neuron.named_parameters():
        if "ilc" in name and key.endswith(("weight", "bias")):  # a spike holds the next one off
            parameter.data.fill_(-0.4 if key.endswith("weight") else 0.0)
    if not load("neuron", name).capabilities.stochastic:
        neuron.eval()
    with torch.no_grad():
        out = neuron(x).flatten()
    states = getattr(neuron, "recorded", {})
    return out, {key: value.detach().flatten() for key, value in states.items() if key != "s"}


def draw(name: str) -> str:
    """The drawing of a neuron, as SVG: input, states where it has some that are shown, output."""
    kinds = inputs(SHOWN[name][1])
    responses = {kind: response(name, x) for kind, x in kinds.items()}
    has_states = any(states for _, states in responses.values())
    heights = [1.0, 2.4, 0.8] if has_states else [1.0, 0.8]
    figure = Figure(figsize=(7.2, 0.75 * sum(heights)))
    axes = figure.subplots(len(heights), 3, sharex=True, gridspec_kw={"height_ratios": heights, "wspace": 0.3})
    for column, (kind, x) in enumerate(kinds.items()):
        out, states = responses[kind]
        axes[0][column].plot(x.flatten().numpy(), color="0.4", linewidth=0.8)
        axes[0][column].set_title(kind, fontsize=8)
        for state, values in states.items():
            axes[1][column].plot(values.numpy(), linewidth=0.8, label=state)
        axes[-1][column].set_xlabel("step")
        axes[-1][column].plot(*bars(out), color="0.2", linewidth=0.8)
        for axis in axes[:, column]:
            axis.set_xlim(0, NUM_STEPS)
            axis.locator_params(nbins=3)
            axis.tick_params(length=0)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("x")
    axes[-1][0].set_ylabel("out")
    if has_states:
        axes[1][0].legend(fontsize=6, loc="upper left", frameon=False)
    text = io.StringIO()
    metadata = {"Date": None, "Creator": "spikecore", "Title": f"neuron {name}"}
    figure.savefig(text, format="svg", bbox_inches="tight", metadata=metadata)
    return compact(text.getvalue())


def bars(out: Tensor) -> tuple[list[float], list[float]]:
    """A vertical line for each step that is not 0, as one line with gaps."""
    at = out.nonzero().flatten().tolist()
    return [x for t in at for x in (t, t, math.nan)], [y for t in at for y in (0.0, out[t].item(), math.nan)]


def compact(svg: str) -> str:
    """Without comments and indentation, coordinates to a tenth of a point; labels (after a >) stay."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(?<![>\d.])\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def paragraphs(target: Any) -> list[str]:
    """Those of a docstring, without its example and its lists of arguments."""
    parts = inspect.cleandoc(target.__doc__).split("\n\n")
    return [part for part in parts if not part.startswith(("Example:", "Returns:", "Raises:"))]


def neuron_section(name: str) -> str:
    """Heading, equations, convention, gradients, source, parity, options, drawing."""
    target = load("neuron", name)
    summary, equations, *rest = paragraphs(target)
    shown = (
        ", ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in SHOWN[name][0].items()
        )
        or "the defaults"
    )
    why = "" if target.capabilities.elementwise else f"\nNot elementwise: {target.why_torch}.\n"
    body = "\n\n".join(rest)
    options = ", ".join(f"`{field}`" for field in target.Config.__dataclass_fields__)
    return (
        f"## `{name}`\n\n{summary}\n\n```text\n{equations}\n```\n\n{body}\n{why}\nOptions: {options}.\n\n"
        f"![Response of {name}](figures/{name}.svg)\n\nDrawn with {shown}.\n"
    )


def surrogate_section(name: str) -> str:
    """Heading and what the docstring says."""
    return f"### `{name}`\n\n" + "\n\n".join(paragraphs(load("surrogate", name))) + "\n"


def names(kind: str) -> list[str]:
    """Of this plugin's components."""
    return [entry.name for entry in components(kind) if entry.plugin.id == "neuron-zoo"]


def page() -> str:
    """neurons.md."""
    head = (
        "# Neurons and surrogates of neuron-zoo\n\n"
        "Written by `docs/make.py` from the docstrings. Θ(u) is 1 for u >= 0, else 0; hard reset: v = (1 - s) h + s "
        "v_reset; soft: v = h - s v_threshold; LIF charge: h = v + (x - (v - v_reset)) / tau, or with "
        "`decay_input=False` h = v - (v - v_reset) / tau + x.\n"
    )
    neurons = [neuron_section(name) for name in sorted(names("neuron"))]
    surrogates = ["## Surrogates\n", *(surrogate_section(name) for name in sorted(names("surrogate")))]
    return "\n".join([head, *neurons, *surrogates])


def main(folder: Path) -> None:
    """Write all of it."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    (folder / "neurons.md").write_text(page(), encoding="utf-8")
    with matplotlib.rc_context(STYLE):
        for name in names("neuron"):
            (figures / f"{name}.svg").write_text(draw(name), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
