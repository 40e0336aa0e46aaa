"""What core itself offers, as a table: for a core that runs from a source tree without installed metadata.

A test holds `BUILTIN` equal to the entry points in pyproject.toml.
"""

from __future__ import annotations

BUILTIN: dict[tuple[str, str], str] = {
    ("plugin", "core"): "spikecore.plugin",
    ("neuron", "if"): "spikecore.nn.neurons:IF",
    ("neuron", "lif"): "spikecore.nn.neurons:LIF",
    ("neuron", "plif"): "spikecore.nn.neurons:ParametricLIF",
    ("neuron", "cuba_lif"): "spikecore.nn.neurons:CubaLIF",
    ("neuron", "li"): "spikecore.nn.neurons:LI",
    ("neuron", "non_spiking_if"): "spikecore.nn.neurons:NonSpikingIF",
    ("neuron", "relu"): "spikecore.nn.neurons:ReLU",
    ("surrogate", "atan"): "spikecore.nn.surrogates:ATan",
    ("surrogate", "sigmoid"): "spikecore.nn.surrogates:Sigmoid",
    ("surrogate", "piecewise_quadratic"): "spikecore.nn.surrogates:PiecewiseQuadratic",
    ("surrogate", "piecewise_exponential"): "spikecore.nn.surrogates:PiecewiseExp",
    ("surrogate", "erf"): "spikecore.nn.surrogates:Erf",
    ("surrogate", "rectangular"): "spikecore.nn.surrogates:Rect",
    ("surrogate", "soft_sign"): "spikecore.nn.surrogates:SoftSign",
    ("surrogate", "superspike"): "spikecore.nn.surrogates:SuperSpike",
    ("encoder", "direct"): "spikecore.nn.encoders:Direct",
    ("encoder", "poisson"): "spikecore.nn.encoders:Poisson",
    ("encoder", "latency"): "spikecore.nn.encoders:Latency",
    ("encoder", "delta"): "spikecore.nn.encoders:Delta",
    ("backend", "torch"): "spikecore.backends.reference:TorchBackend",
    ("model", "mlp"): "spikecore.models.mlp:MLP",
    ("model", "convnet"): "spikecore.models.convnet:ConvNet",
    ("dataset", "digits"): "spikecore.datasets.digits:Digits",
    ("trainer", "classify"): "spikecore.trainers.classify:Classify",
}

COMMANDS: dict[str, str] = {
    "bench": "How fast neurons run on each backend, how far from the least possible, after a proof of equality.",
    "convert-weights": "Weights that another library published, as a file for a model of ours.",
    "deploy": "A trained net as an artefact for a device or an exchange format, compared with the net.",
    "compare": "Several runs as a table, and their curves on one page.",
    "doctor": "What works here, what does not, and what to do about it.",
    "eval": "The metrics of a run, from its saved weights.",
    "info": "Fields, defaults and documentation of a component.",
    "new-plugin": "A complete plugin package to start from.",
    "list-plugins": "What is installed, read from metadata alone.",
    "report": "The report of a run, made again from its files.",
    "run": "Train as a configuration says.",
    "test": "Prove that a component keeps the contract of its kind.",
    "view": "A sample of a dataset, in numbers and as a picture.",
    "which": "Where a component comes from.",
}
"""Core's own commands with their one-line help; their names are reserved. Each is `spikecore.cli.<name>:command`."""
