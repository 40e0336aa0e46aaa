"""`spike view DATASET [INDEX]`: what a sample is, and a picture of it; `spike view FILE`: a single recording."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecore.cli import completing
from spikecore.cli.output import say
from spikecore.cli.recording import is_file_name, view_file
from spikecore.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

STEPS_SHOWN = 16
"""Steps of a sequence in a picture, at most; of a longer one, steps at equal distances."""
MOST_COLUMNS = 8
VALUES_SHOWN = 8
"""Values of a label that are printed one by one."""
GIF_SIDE = 240
"""Pixels of a GIF's longer side, at least: a smaller sample is enlarged by a whole factor."""


@click.command()
@click.argument("dataset", metavar="DATASET|FILE", shell_complete=completing.datasets_and_files)
@click.argument("index", type=int, default=0)
@click.option("--split", "split_name", default="train", show_default=True, help="The split that INDEX counts in.")
@click.option(
    "--set", "options", metavar="KEY=VALUE", multiple=True, help="An option of the dataset or the file. Repeatable."
)
@click.option(
    "--out",
    metavar="PATH",
    help="FILE.gif moves, FILE.png shows the steps side by side; a directory with --all. [default: after the sample]",
)
@click.option(
    "--fps", type=click.FloatRange(0.1, 100), default=10.0, show_default=True, help="Steps per second of a GIF."
)
@click.option("--all", "is_all", is_flag=True, help="Write pictures of all samples of the split into a directory.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["gif", "png"]),
    default=None,
    help="Form of the pictures of --all. [default: gif]",
)
def command(
    dataset: str,
    index: int,
    split_name: str,
    options: Sequence[str],
    out: str | None,
    fps: float,
    is_all: bool,
    form: str | None,
) -> None:
    """Show sample INDEX of DATASET, or the recording in FILE: numbers, and a PNG or GIF of it."""
    if is_file_name(dataset) and not _is_dataset(dataset):
        _view_recording(Path(dataset), options, out, fps, is_all or index != 0)
        return
    made, split = _open_split(dataset, split_name, options)
    if is_all:
        directory = Path(out or f"{dataset.replace(':', '-')}-{split_name}")
        _write_all(made, split, f"{dataset} {split_name}", directory, form, fps)
        return
    if form is not None:
        raise click.UsageError("--as goes with --all; for one sample, --out names a .png or .gif")
    if not 0 <= index < len(split):
        raise click.UsageError(f"INDEX {index}: the split {split_name} has the samples 0 to {len(split) - 1}")
    x, label = _sample(split, index, f"{dataset} {split_name}")
    values = x.numpy()
    say(f"{dataset} {split_name}[{index}] of {len(split)}")
    shown = _label_text(label, made.info.classes)
    say(f"  label   {label} ({shown})" if isinstance(label, int) else f"  label   {shown}")
    axes = _axes(values)
    say(f"  shape   [{axes}] = {list(values.shape)}, {x.dtype}")
    say(f"  values  {values.min():g} to {values.max():g}, mean {values.mean():.4g}, sum {values.sum():.6g}")
    if hasattr(split, "events"):
        events, size = split.events(index)
        span = f"{(events.t[-1] - events.t[0]) / 1000:.1f} ms" if len(events) else "nothing"
        on = f", {float((events.p != 0).mean()):.0%} on" if len(events) else ""
        say(f"  events  {len(events)} in {span} on {size[0]} × {size[1]} pixels{on}")
    _refuse_faulty((x, label), made, f"{dataset} {split_name}[{index}]")
    is_moving = made.is_sequence and values.ndim == 4
    path = Path(out or f"{dataset.replace(':', '-')}-{split_name}-{index}.{'gif' if is_moving else 'png'}")
    _check_name(path, is_moving, axes)
    drawn = split.unnormalised(x).numpy() if hasattr(split, "unnormalised") else values
    _write(path, drawn, shown, made.is_sequence, fps)
    say(f"  picture {path}")


def _is_dataset(word: str) -> bool:
    from spikecore.registry import registry

    return any(word in (entry.name, entry.shortest) for entry in registry().components("dataset"))


def _view_recording(path: Path, options: Sequence[str], out: str | None, fps: float, is_indexed: bool) -> None:
    from spikecore.run.overrides import parse_settings

    if is_indexed:
        raise click.UsageError(f"{path} is one recording: it has no INDEX and no --all")
    view = view_file(path, parse_settings(options), STEPS_SHOWN)
    picture_path = Path(out or f"{path.stem}.gif")
    _check_name(picture_path, True, "T, C, H, W")
    _write(picture_path, view.frames, path.name, True, fps)
    say(f"  {'picture':<9} {picture_path}")


def _open_split(dataset: str, split_name: str, options: Sequence[str]) -> tuple[Any, Any]:
    """The dataset and its split."""
    from spikecore.registry import create
    from spikecore.run.config import resolve

    resolved = resolve(None, [f"dataset.name={dataset}", *(f"dataset.{option}" for option in options)])
    made = create("dataset", dataset, **resolved.options("dataset"))
    if split_name not in made.splits:
        raise click.UsageError(f"--split {split_name}: {dataset} has the splits {', '.join(made.splits)}")
    return made, made.split(split_name)


def _sample(split: Any, index: int, title: str) -> tuple[Any, Any]:
    """A sample that has numbers to show.

    Raises:
        DatasetError: it is no pair, or its x is no tensor, or an empty one.
    """
    from torch import Tensor

    from spikecore.errors import DatasetError

    sample = split[index]
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise DatasetError(f"{title}[{index}]: it is of type {type(sample).__name__}; it must be a pair (x, label)")
    x, label = sample
    if not isinstance(x, Tensor) or not x.numel():
        shown = f"has the shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"is of type {type(x).__name__}"
        raise DatasetError(f"{title}[{index}]: its x {shown}; it must be a tensor of one number or more")
    return x, label


def _refuse_faulty(sample: tuple[Any, Any], made: Any, name: str) -> None:
    """Say what would stop a run, once the numbers are shown.

    Raises:
        DatasetError: the sample is not what the dataset says.
    """
    from spikecore.errors import DatasetError
    from spikecore.trainers.splits import target_of
    from spikecore.trainers.targets import sample_problem

    problem = sample_problem(sample, target_of(made), made.is_sequence, tuple(made.sample_shape))
    if problem:
        raise DatasetError(f"{name}: {problem}")


def _write_all(made: Any, split: Any, title: str, directory: Path, form: str | None, fps: float) -> None:
    """A picture of every sample, in a directory for each class."""
    if directory.exists() and not directory.is_dir():
        raise click.UsageError(f"--out {directory}: is a file; --all writes into a directory")
    width = len(str(max(len(split) - 1, 0)))
    for index in range(len(split)):
        x, label = _sample(split, index, title)
        _refuse_faulty((x, label), made, f"{title}[{index}]")
        values = x.numpy()
        is_moving = made.is_sequence and values.ndim == 4
        if form == "gif" and not is_moving:
            raise click.UsageError(f"--as gif: a sample [{_axes(values)}] does not move; take png")
        suffix = form or ("gif" if is_moving else "png")
        shown = _label_text(label, made.info.classes)
        folder = directory / (re.sub(r"^\.+|[^\w.-]+", "_", shown) if isinstance(label, int) else ".")
        drawn = split.unnormalised(x).numpy() if hasattr(split, "unnormalised") else values
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{index:0{width}}.{suffix}", drawn, shown, made.is_sequence, fps)
    say(f"{len(split)} pictures in {directory}")


def _axes(values: np.ndarray) -> str:
    """Names of the axes of a sample, as in `T, C, H, W`; one of two axes is a sequence of lines."""
    if values.ndim == 2:
        return "T, W"
    return ", ".join(("T", "C", "H", "W")[-values.ndim :])


def _check_name(path: Path, is_moving: bool, axes: str) -> None:
    if path.suffix not in (".png", ".gif"):
        raise ConfigError(f"--out {path}: the name must end in .png or .gif")
    if path.suffix == ".gif" and not is_moving:
        raise ConfigError(f"--out {path}: a sample [{axes}] does not move; name a .png")


def _write(path: Path, values: np.ndarray, title: str, is_sequence: bool, fps: float) -> None:
    with _writing(path):
        if path.suffix == ".gif":
            _write_gif(path, values, fps)
        else:
            _write_png(path, values, title, is_sequence)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error}") from error


def _label_text(label: Any, classes: Sequence[str]) -> str:
    """A class by its name; any other label by its values, or its shape where there are many."""
    if isinstance(label, int):
        return str(classes[label]) if 0 <= label < len(classes) else "no such class"
    if not hasattr(label, "numel"):
        return f"{label!r} ({type(label).__name__})"
    if not label.numel():
        return f"none, {list(label.shape)}"
    if label.numel() <= VALUES_SHOWN:
        return ", ".join(f"{value:.6g}" for value in label.flatten().tolist())
    return f"{list(label.shape)}, {label.dtype}, {float(label.min()):.6g} to {float(label.max()):.6g}"


def picture(step: np.ndarray, top: float, is_signed: bool = False) -> np.ndarray:
    """`[C, H, W]` → RGB `[H, W, 3]`, uint8.

    One channel is grey (a signed one blue to red), two are events: the second (brighter) takes blue and green away,
    the first (darker) red and green; three are red, green and blue.

    Args:
        step: one step.
        top: the value that is drawn at full strength.
        is_signed: its sample has negative values; a step without any is drawn like the others.
    """
    import numpy as np

    scaled = step.astype(np.float64) / (top or 1.0)
    if len(step) == 3:
        return (np.clip(scaled, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    if len(step) == 1 and not is_signed:
        return np.repeat((np.clip(scaled, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0), 3, axis=2)
    if len(step) == 1:
        down, up = np.clip(-scaled[0], 0, 1), np.clip(scaled[0], 0, 1)
    else:
        down, up = np.clip(scaled[:2], 0, 1)
    rgb = np.stack([1 - down, 1 - np.maximum(up, down), 1 - up], axis=2)
    return (rgb * 255).astype(np.uint8)


def _top(values: np.ndarray) -> float:
    """Full strength: nearly the largest value, so that one hot pixel does not make all others pale."""
    import numpy as np

    magnitudes = np.abs(values)
    magnitudes = magnitudes[magnitudes > 0]
    return float(np.quantile(magnitudes, 0.99)) if magnitudes.size else 1.0


def _write_gif(path: Path, values: np.ndarray, fps: float) -> None:
    from PIL import Image

    top, is_signed = _top(values), bool((values < 0).any())
    factor = max(1, GIF_SIDE // max(values.shape[-2:]))
    size = (values.shape[-1] * factor, values.shape[-2] * factor)
    pictures = [picture(step, top, is_signed) for step in values]
    frames = [Image.fromarray(step).resize(size, Image.Resampling.NEAREST) for step in pictures]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)


def _write_png(path: Path, values: np.ndarray, title: str, is_sequence: bool) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if values.ndim == 2:  # [T, W]: a cochlea, or a spectrum
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(values.T, aspect="auto", origin="lower", interpolation="nearest", cmap="viridis")
        axes.set(title=title, xlabel="step", ylabel="unit")
    else:
        steps: Any = values if is_sequence else values[None]
        chosen = range(0, len(steps), math.ceil(len(steps) / STEPS_SHOWN))
        columns = min(len(chosen), MOST_COLUMNS)
        rows = math.ceil(len(chosen) / columns)
        figure = Figure(figsize=(1.4 * columns + 0.4, 1.6 * rows + 0.4), layout="constrained")
        figure.suptitle(title)
        top, is_signed = _top(values), bool((values < 0).any())
        for place, step in enumerate(chosen):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.imshow(picture(steps[step], top, is_signed), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if is_sequence:
                axes.set_title(f"t = {step}", fontsize=8)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")
