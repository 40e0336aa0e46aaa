"""From a net to a directory with its artefact, what became of each operator, and how far both agree.

net.SUFFIX       the artefact
deploy.json      operators, errors of quantized weights, options, versions, checksums
fidelity.json    agreement of artefact and net, per layer and step; where it was compared
fidelity.html    both as a page

The directory is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis import (
    Fidelity,
    QuantizationError,
    compare_traces,
    fidelity_page,
    quantization_errors,
    record_spikes,
)
from spikecore.errors import (
    ConfigError,
    ConversionError,
    NetTraceError,
    OptionError,
    PluginUnavailable,
    RunError,
    ShapeError,
)
from spikecore.interfaces.deployer import Artefact, Deployer, records_to_json
from spikecore.nn.weights import plain_options
from spikecore.registry import registry
from spikecore.run.out import whole_directory
from spikecore.run.samples import Samples
from spikecore.version import __version__

FORM = 1
"""Of deploy.json."""
ARTEFACT, MANIFEST, FIDELITY, PAGE = "net", "deploy.json", "fidelity.json", "fidelity.html"


@dataclass(frozen=True)
class Deployment:
    """What was written.

    Args:
        directory: with all files.
        artefact: in it.
        fidelity: the agreement; None where nothing was compared.
        source: what was compared on, in words.
        notes: of the deployer, and why nothing was compared.
        problems: layers that lie farther from the net than the deployer declares.
    """

    directory: Path
    artefact: Artefact
    fidelity: Fidelity | None
    source: str
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def deploy(
    deployer: Deployer,
    name: str,
    net: nn.Module,
    example: Tensor,
    directory: Path,
    samples: Samples | None,
    tolerance: float,
    *,
    is_asked_for: bool,
    about: Mapping[str, Any],
) -> Deployment:
    """Export, compare, and write it all into `directory`.

    Args:
        deployer: takes every operator of the net.
        name: of the deployer.
        net: in multi-step mode.
        example: `[T, B, ...]`, what it is exported for.
        directory: new or empty.
        samples: what to compare on; None to compare nothing.
        tolerance: outputs that are not spikes agree up to this difference.
        is_asked_for: the comparison was asked for, so it is an error when it cannot be made here.
        about: where the net comes from, for the manifest.

    Raises:
        ConfigError: the net is refused after all, or the directory cannot be written.
        RunError: the deployer's trace or simulation is not one of this net.
        PluginUnavailable: the comparison was asked for and cannot be made here.
    """
    with whole_directory(directory) as aside:
        artefact = _export(deployer, name, net, example, aside)
        notes = list(artefact.notes)
        fidelity = None
        if samples is not None:
            samples = _fit_samples(deployer, samples, example, notes)
            try:
                fidelity = _compare(deployer, name, artefact, net, samples, example, tolerance)
            except PluginUnavailable as error:
                if is_asked_for:
                    raise
                notes.append(f"Not compared with the net: {error}")
        _write(aside, deployer, name, artefact, example, fidelity, notes, about, quantization_errors(net))
    moved = replace(artefact, path=directory / Path(artefact.path).relative_to(aside))
    source = "" if samples is None or fidelity is None else samples.source
    problems = tuple(_problems(deployer, name, fidelity))
    return Deployment(directory, moved, fidelity, source, tuple(notes), problems)


def _export(deployer: Deployer, name: str, net: nn.Module, example: Tensor, aside: Path) -> Artefact:
    try:
        artefact: Artefact = deployer.export(net, example, aside / f"{ARTEFACT}{deployer.capabilities.suffix}")
    except (ConversionError, NetTraceError) as error:
        raise ConfigError(f"deployer {name!r} refuses this net: {error}") from error
    if aside not in Path(artefact.path).parents:
        raise RunError(f"deployer {name!r} wrote {artefact.path}, which is not where it was told to write ({aside})")
    return artefact


def _fit_samples(deployer: Deployer, samples: Samples, example: Tensor, notes: list[str]) -> Samples:
    """Samples that the artefact takes: of a fixed shape, whole batches only."""
    if not deployer.capabilities.fixed_shape:
        return samples
    batch, count = example.shape[1], samples.x.shape[1]
    if samples.x.shape[0] != example.shape[0] or count < batch:
        raise ConfigError(
            f"the artefact takes {tuple(example.shape)} only, and the samples are {tuple(samples.x.shape)}: leave out "
            f"--num-steps, and compare on {batch} samples at least"
        )
    whole = count - count % batch
    if whole < count:
        notes.append(f"Compared on {whole} of {count} samples: the artefact takes batches of {batch}.")
    labels = None if samples.labels is None else samples.labels[:whole]
    return replace(samples, x=samples.x[:, :whole], labels=labels)


def _compare(
    deployer: Deployer,
    name: str,
    artefact: Artefact,
    net: nn.Module,
    samples: Samples,
    example: Tensor,
    tolerance: float,
) -> Fidelity:
    out, spikes = record_spikes(net, samples.x)
    size = example.shape[1] if deployer.capabilities.fixed_shape else samples.x.shape[1]
    batches = torch.split(samples.x, size, 1)
    try:
        outs = [deployer.simulate(artefact, x) for x in batches]
        traces = [deployer.trace(artefact, x) for x in batches]
        trace: dict[str, Tensor] = {}
        for layer in traces[0]:
            trace[layer] = torch.cat([of_batch[layer] for of_batch in traces], 1)
        fidelity = compare_traces(spikes, trace, tolerance)
        decides = out.dim() == 3 and samples.labels is not None
        return fidelity.with_output(out, torch.cat(outs, 1), samples.labels if decides else None)
    except (OptionError, ShapeError) as error:
        raise RunError(f"deployer {name!r}: what it simulates is not this net: {error}") from error


def _problems(deployer: Deployer, name: str, fidelity: Fidelity | None) -> list[str]:
    """Layers of spikes farther from the net than declared."""
    if fidelity is None:
        return []
    declared = deployer.capabilities.tolerance
    far = [layer for layer in fidelity.compared_layers if layer.is_binary and layer.mean_difference > declared]
    return [
        f"layer {layer.name!r} differs from the net by {layer.mean_difference:.6f} per output and step; deployer "
        f"{name!r} declares {declared:g}"
        for layer in far
    ]


def _write(
    aside: Path,
    deployer: Deployer,
    name: str,
    artefact: Artefact,
    example: Tensor,
    fidelity: Fidelity | None,
    notes: list[str],
    about: Mapping[str, Any],
    quantization: Sequence[QuantizationError],
) -> None:
    files = {}
    for path in sorted(aside.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            files[str(path.relative_to(aside))] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    plugin = registry().find("deployer", name).plugin
    manifest = {
        "form": FORM,
        "spikecore": __version__,
        "deployer": {"name": name, "distribution": plugin.distribution, "version": plugin.version},
        "options": plain_options(deployer.config),
        **about,
        "example_shape": list(example.shape),
        "artefact": str(Path(artefact.path).relative_to(aside)),
        "operators": records_to_json(artefact.mapping),
        "quantization": [asdict(error) for error in quantization],
        "notes": notes,
        "files": files,
    }
    aside.joinpath(MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if fidelity is not None:
        aside.joinpath(FIDELITY).write_text(fidelity.to_json(), encoding="utf-8")
    title = f"{about.get('run', 'net')} on {name}"
    text = fidelity_page(title, fidelity, artefact.mapping, notes, quantization)
    aside.joinpath(PAGE).write_text(text, encoding="utf-8")
