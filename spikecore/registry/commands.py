"""Core's own commands with their one-line help; their names are reserved. Each is `spikecore.cli.<name>:command`."""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "bench": "How fast neurons run on each backend, how far from the least possible, after a proof of equality.",
    "convert": "A trained net into a spiking or quantized one, with a report of every call.",
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
