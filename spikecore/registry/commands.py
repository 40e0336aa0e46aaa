"""Core's commands with their one-line help. Their names are reserved; each one is `spikecore.cli.<name>:command`."""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "bench": "Measure neurons on each backend, and compare with the theoretical minimum; checks equality first.",
    "convert": "Convert a trained net into a spiking or quantized one, with a report of every call.",
    "convert-weights": "Convert weights that another library published for a model of ours.",
    "deploy": "Export a trained net for a device or an exchange format, and compare it with the net.",
    "compare": "Compare several runs in a table, and plot their curves on one page.",
    "doctor": "Diagnose the installation: what works, what does not, and what to do about it.",
    "eval": "Print the metrics of a run, from its saved weights.",
    "info": "Show the options, defaults and documentation of a component.",
    "new-plugin": "Create a complete plugin package to start from.",
    "list-plugins": "List what is installed, from metadata alone.",
    "profile": "Count the operations and energy of a net, layer by layer, and time its layers.",
    "report": "Make the report of a run again, from its files.",
    "run": "Train a net from a configuration.",
    "share": "Write the net of a run for others: config.json and model.safetensors.",
    "test": "Check that a component satisfies the contract of its kind.",
    "view": "Show a sample of a dataset, in numbers and as a picture.",
    "which": "Show where a component comes from.",
}
