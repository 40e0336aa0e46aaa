"""`spike convert-weights`: weights that another library published, as a safetensors file for a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikecore.cli.output import say
from spikecore.errors import ConfigError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "source", required=True, metavar="SOURCE", help="Who wrote FILE, as the model calls it.")
@click.option("--model", "name", required=True, metavar="NAME", help="The model that the weights are for.")
@click.option("--input-shape", required=True, metavar="C,H,W", help="Of one sample, without T and B.")
@click.option("--num-outputs", required=True, type=click.IntRange(1), help="Size of the output, as of classes.")
@click.option("--neuron", default="lif", show_default=True, metavar="NAME", help="The neuron to build the net with.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the model; neuron.KEY=VALUE one of the neuron. Repeatable.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write, FILE.safetensors.")
@click.option("--force", is_flag=True, help="Replace the file at --out.")
@click.option(
    "--load", "files", metavar="FILE.py", multiple=True, help="Run a file of @register components. Repeatable."
)
def command(
    file: Path,
    source: str,
    name: str,
    input_shape: str,
    num_outputs: int,
    neuron: str,
    settings: tuple[str, ...],
    out: Path,
    force: bool,
    files: tuple[str, ...],
) -> None:
    """Write the tensors in FILE as weights of the model NAME.

    FILE is safetensors or what torch.save wrote of a state_dict; Python objects in it are refused, never run. The
    result fits the model key by key and shape by shape, or nothing is written and every difference is listed.

    \b
    spike convert-weights resnet18.pth --from torchvision --model my_resnet \\
        --input-shape 3,224,224 --num-outputs 1000 --out resnet18.safetensors

    Exit status: 0 it is written; 2 the file, the source, the model or an option cannot be used.
    """
    from spikecore.cli.shape import parse_shape
    from spikecore.registry import create, registry

    for path in files:
        registry().load_file(path)
    _check_out(out, force)
    options, neuron_options = _options(settings)
    shape = parse_shape(input_shape)
    net = create("model", name, lambda: create("neuron", neuron, **neuron_options), shape, num_outputs, **options)
    state, digest = _import_weights(net, name, source, file)

    from safetensors.torch import save

    from spikecore.files import cure, write_file
    from spikecore.nn.weights import WeightsNote, plain_options

    made = create("neuron", neuron, **neuron_options)
    note = WeightsNote(
        model=name,
        options=plain_options(net.config),
        input_shape=shape,
        num_outputs=num_outputs,
        neuron={"name": neuron, **plain_options(made.config)},
        source=source,
        source_sha256=digest,
    )
    # Shared memory is not what a file can say: every tensor is its own.
    tensors = {key: value.detach().clone().contiguous() for key, value in state.items()}
    try:
        write_file(out, save(tensors, note.to_metadata()))
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {cure(error)}") from error
    count = sum(value.numel() for value in tensors.values())
    say(f"{out}: {len(tensors)} tensors, {count} values, for model {name} from {source}")


def _import_weights(net: Any, name: str, source: str, file: Path) -> tuple[dict[str, Any], str]:
    """The net's own `state_dict` as the model reads it from the file, and the SHA-256 of the file."""
    import hashlib

    from spikecore.errors import CheckpointError, SpikeError
    from spikecore.nn.weights import check_state, read_tensors

    sources = tuple(getattr(net, "weight_sources", ()))
    if source not in sources:
        known = f"it reads those of {', '.join(sources)}" if sources else "it reads none"
        raise click.UsageError(f"--from {source}: model {name!r} does not read weights of {source} ({known})")
    tensors, _ = read_tensors(file)
    try:
        state = dict(net.import_weights(source, tensors))
    except SpikeError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except KeyError as error:
        raise CheckpointError(
            f"{file}: has no tensor {error}, which model {name!r} expects of {source}; "
            f"it has {', '.join(sorted(tensors)[:8])}{' …' if len(tensors) > 8 else ''}"
        ) from error
    check_state(net, state, f"{file}, read as {source},")
    return state, hashlib.sha256(file.read_bytes()).hexdigest()


def _check_out(out: Path, force: bool) -> None:
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: expected a name that ends in .safetensors")
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a directory; name a file in it")
    if out.exists() and not force:
        raise ConfigError(f"--out {out}: exists already: choose another name, or --force to replace it")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no directory {out.parent}")


def _options(settings: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the model, and of the neuron."""
    from spikecore.run.overrides import parse_settings

    options = parse_settings(settings)
    neuron = options.pop("neuron", {})
    if not isinstance(neuron, dict):
        raise ConfigError(f"--set neuron={neuron}: name an option of the neuron, as in neuron.tau=3.0")
    return options, neuron
