"""Directories that hold a network: what is written for Lava, and read back.

network.json     populations, synapses and how they are linked
arrays/*.npy     weights, biases and first potentials, in torch's order of axes
run.py           makes the network with lava-nc and runs it; needs nothing of spikecore
network.net      the same as a file of lava-dl, where that has everything

Equal networks give equal bytes. Files are read without trust: every size is compared with that of the file before
anything is allocated, nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.documents import parse_json
from spikecore.errors import ConversionError
from spikecore.files import read_file, refuse_special
from spikecore_deploy_lava.network import INPUT, Doubles, Layer, Network, Population, Synapses

FORM = 2
"""1 has no loops."""
MANIFEST, ARRAYS = "network.json", "arrays"
DAMAGE = (OSError, EOFError, ValueError, RecursionError, tokenize.TokenError)
"""What reading a file may raise; NumPy parses the header of an array as Python."""
MAX_LAYERS = 1000
MAX_AXES = 4


def write_network(network: Network, directory: Path) -> None:
    """Write manifest and arrays into an existing directory."""
    arrays = directory / ARRAYS
    arrays.mkdir()
    kind = np.int64 if network.model == "fixed_pt" else np.float64
    layers = []
    for index, layer in enumerate(network.layers):
        _save(arrays / f"{index}.weight.npy", layer.synapses.weight.astype(kind))
        is_integer_bias = network.model == "fixed_pt" and layer.population is not None
        _save(arrays / f"{index}.bias.npy", layer.bias.astype(np.int64 if is_integer_bias else np.float64))
        if layer.population is not None:
            _save(arrays / f"{index}.v.npy", layer.population.v.astype(kind))
        if layer.recurrent is not None:
            _save(arrays / f"{index}.recurrent.npy", layer.recurrent.astype(kind))
        layers.append(_described(layer))
    manifest = {
        "form": FORM,
        "model": network.model,
        "input_shape": list(network.input_shape),
        "lags": [network.lag(index) for index in range(len(network.layers))],
        "layers": layers,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _described(layer: Layer) -> dict[str, Any]:
    synapses, population = layer.synapses, layer.population
    about: dict[str, Any] = {"name": layer.name, "source": layer.source, "shape": list(layer.shape), "unit": layer.unit}
    if synapses.is_kernel:
        about["conv"] = {
            "stride": list(synapses.stride),
            "padding": list(synapses.padding),
            "dilation": list(synapses.dilation),
            "groups": synapses.groups,
        }
    else:
        about["dense"] = {"flattens": synapses.flattens, "recurrent": layer.recurrent is not None}
    if population is not None:
        about["lif"] = {"du": population.du, "dv": population.dv, "vth": population.vth}
    return about


def _save(path: Path, array: Doubles | np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def read_network(directory: Path, max_bytes: int) -> Network:
    """The network of a directory.

    Raises:
        ConversionError: it is damaged, or larger than `max_bytes`.
    """
    path = directory / MANIFEST
    try:
        if path.stat().st_size > max_bytes:
            raise ConversionError(f"{path}: has {path.stat().st_size} bytes; raise max_bytes if you trust it")
        manifest = parse_json(read_file(path, max_bytes, follows_link=True), most_bytes=max_bytes)
        return _Reader(directory, max_bytes).network(manifest)
    except ConversionError:
        raise
    except (*DAMAGE, KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise ConversionError(
            f"{path}: is missing or damaged ({type(error).__name__}: {error}): export the net again"
        ) from error


class _Reader:
    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self.left = directory, max_bytes

    def network(self, manifest: dict[str, Any]) -> Network:
        if manifest["form"] != FORM:
            raise ConversionError(
                f"{self.directory}: has the form {manifest['form']!r}, expected {FORM}: update this plugin"
            )
        if manifest["model"] not in ("fixed_pt", "floating_pt"):
            raise ConversionError(f"{self.directory}: no process model is called {manifest['model']!r}")
        described = manifest["layers"]
        if not 1 <= len(described) <= MAX_LAYERS:
            raise ConversionError(f"{self.directory}: has {len(described)} layers, expected 1 to {MAX_LAYERS}")
        layers = tuple(self.layer(index, about) for index, about in enumerate(described))
        network = Network(manifest["model"], _shape(manifest["input_shape"]), layers)
        for index in range(len(layers)):
            check_layer(network, index, str(self.directory))
        return network

    def layer(self, index: int, about: dict[str, Any]) -> Layer:
        weight = self.array(f"{index}.weight")
        synapses = Synapses(weight, bool(about.get("dense", {}).get("flattens", False)))
        if "conv" in about:
            conv = about["conv"]
            pairs = [_two(conv[key]) for key in ("stride", "padding", "dilation")]
            synapses = Synapses(weight, False, *pairs, groups=int(conv["groups"]))
        population = None
        if "lif" in about:
            lif = about["lif"]
            numbers = [float(lif[key]) for key in ("du", "dv", "vth")]
            population = Population(*numbers, self.array(f"{index}.v"))
        bias = self.array(f"{index}.bias")
        shape = _shape(about["shape"])
        is_loop = bool(about.get("dense", {}).get("recurrent", False))
        recurrent = self.array(f"{index}.recurrent") if is_loop else None
        name, source, unit = str(about["name"]), int(about["source"]), float(about["unit"])
        return Layer(name, source, shape, synapses, bias, population, unit, recurrent)

    def array(self, name: str) -> Doubles:
        path = self.directory / ARRAYS / f"{name}.npy"
        refuse_special(path, follows_link=True)
        size = path.stat().st_size
        if size > self.left:
            raise ConversionError(
                f"{path}: has {size} bytes, {self.left} of max_bytes are left: raise it if you trust the file"
            )
        self.left -= size
        # Mapped, not read: a header that promises more than the file has is an error before anything is allocated.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.dtype.kind not in "iuf" or mapped.ndim > MAX_AXES:
            raise ConversionError(f"{path}: holds {mapped.dtype} with {mapped.ndim} axes, expected numbers")
        array = np.array(mapped, dtype=np.float64)
        if not np.isfinite(array).all():
            raise ConversionError(f"{path}: holds a number that is not finite")
        return array


def check_layer(network: Network, index: int, where: str) -> None:
    """Whether a layer fits its source and itself.

    Raises:
        ConversionError: it does not; names `where` and the layer.
    """
    layer = network.layers[index]
    problem = "".join(list(_problems(network, index))[:1])
    if problem:
        raise ConversionError(f"{where}: layer {index} ({layer.name!r}): {problem}")


def _problems(network: Network, index: int) -> Any:
    layer, synapses = network.layers[index], network.layers[index].synapses
    if not INPUT <= layer.source < index or (layer.source != INPUT and network.layers[layer.source].population is None):
        yield f"takes layer {layer.source}, which gives it no spikes"
        return
    given = network.input_shape if layer.source == INPUT else network.layers[layer.source].shape
    weight = synapses.weight
    if synapses.is_kernel:
        expected = _convolved(synapses, given)
    elif weight.ndim != 2:
        expected = None
    else:
        fits = weight.shape[1] == math.prod(given) and (synapses.flattens or len(given) == 1)
        expected = (weight.shape[0],) if fits else None
    if expected is None or expected != layer.shape:
        yield f"weights {weight.shape} do not take steps of {given} to {layer.shape}"
        return
    channels = layer.shape[0]
    if layer.bias.shape != (channels,):
        yield f"has {layer.bias.shape} biases for {channels} channels"
    population, recurrent = layer.population, layer.recurrent
    if recurrent is not None and (population is None or layer.shape != (channels,)):
        yield "has a loop, and no population with one axis"
    if recurrent is not None and recurrent.shape != (channels, channels):
        yield f"has a loop of {recurrent.shape} weights for {channels} neurons"
    if population is None:
        return
    limits = (4095, 4096) if network.model == "fixed_pt" else (1, 1)
    if not 0 <= population.du <= limits[0] or not 0 <= population.dv <= limits[1]:
        yield f"has decays {population.du:g} and {population.dv:g}, expected up to {limits[0]} and {limits[1]}"
    if population.v.shape not in ((channels,), (1,)):
        yield f"has {population.v.shape} first potentials for {channels} channels"
    if network.model == "fixed_pt":
        weights = weight if recurrent is None else np.concatenate([weight, recurrent], 1)
        numbers = [weights, layer.bias, population.v, np.array([population.du, population.dv, population.vth])]
        if any(not np.array_equal(array, np.rint(array)) for array in numbers):
            yield "holds fractions, expected whole numbers"
        if not 0 <= population.vth < 2**17 or np.abs(weights).max(initial=0) > 256:
            yield "has a threshold or a weight that no register holds"
    elif not math.isfinite(population.vth):
        yield f"has the threshold {population.vth}"


def _convolved(synapses: Synapses, given: tuple[int, ...]) -> tuple[int, ...] | None:
    weight = synapses.weight
    if len(given) != 3 or min(*synapses.stride, *synapses.dilation, synapses.groups) < 1 or min(synapses.padding) < 0:
        return None
    if max(*synapses.padding, *synapses.stride, *synapses.dilation) > 2**15:
        return None
    if given[0] != weight.shape[1] * synapses.groups or weight.shape[0] % synapses.groups:
        return None
    places = []
    for axis in (0, 1):
        room = given[axis + 1] + 2 * synapses.padding[axis] - synapses.dilation[axis] * (weight.shape[axis + 2] - 1) - 1
        if room < 0:
            return None
        places.append(room // synapses.stride[axis] + 1)
    return (weight.shape[0], *places)


def _shape(values: Any) -> tuple[int, ...]:
    shape = tuple(int(value) for value in values)
    if not 1 <= len(shape) <= 3 or min(shape) < 1 or math.prod(shape) > 2**31:
        raise ValueError(f"the shape {shape}")
    return shape


def _two(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
