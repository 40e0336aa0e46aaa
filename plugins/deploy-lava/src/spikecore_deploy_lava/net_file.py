"""Files of lava-dl (`.net`, HDF5), as `lava.lib.dl.netx` reads them.

layer/<i>/type      input, conv, flatten or dense
         /shape     (C, H, W), or (n,)
         /weight    whole numbers, (out, in) or (out, in, kH, kW)
         /bias      whole numbers, aligned like a sum
         /neuron    type CUBA, iDecay = du + 1, vDecay = dv, vThMant

netx has no first potential: there, v starts at 0. Files are read without trust: sizes are looked at before anything is
allocated, and links and values in other files are refused.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spikecore.errors import ConversionError
from spikecore.files import write_file
from spikecore.hdf5 import check_hdf5
from spikecore_deploy_lava.files import MAX_LAYERS, check_layer
from spikecore_deploy_lava.network import INPUT, MAX_VTH, UNITY, Doubles, Layer, Network, Population, Synapses

NET_FILE = "network.net"
NEURONS = ("CUBA", "LOIHI")


def unwritten_part(network: Network) -> str:
    """What of a network such a file has no place for; "" where it has one for everything."""
    if network.model != "fixed_pt":
        return "netx computes in fixed point"
    for index, layer in enumerate(network.layers):
        if layer.recurrent is not None:
            return f"layer {layer.name} takes its own spikes, and only lava-nc was compared with that"
        if layer.source != index - 1:
            return f"layer {layer.name} does not take the layer before it, and netx knows chains only"
    return ""


def write_net_file(network: Network, path: Path) -> list[str]:
    """Write a file, whole or not at all; equal networks give equal bytes. Returns what netx computes differently."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        layers = file.create_group("layer")
        # Spikes of an input that a matrix takes are given flattened: netx flattens behind a convolution only.
        first = network.layers[0].synapses
        shape = network.input_shape if first.is_kernel else (math.prod(network.input_shape),)
        group = layers.create_group("0")
        _text(group, "type", "input")
        group.create_dataset("shape", data=np.array(shape))
        for index, layer in enumerate(network.layers):
            if layer.synapses.flattens and index:
                _text(layers.create_group(str(len(layers))), "type", "flatten")
            _write(layers.create_group(str(len(layers))), layer)
    write_file(path, buffer.getvalue())
    notes = []
    late = [layer.name for layer in network.layers if layer.population is not None and layer.population.v.any()]
    if late:
        notes.append(f"{NET_FILE}: netx starts {', '.join(late)} at 0, though a bias acts before spikes arrive.")
    if network.layers[-1].population is None:
        notes.append(f"{NET_FILE}: its last layer never fires; what the net returns is its potential.")
    return notes


def _write(group: h5py.Group, layer: Layer) -> None:
    synapses, population = layer.synapses, layer.population
    weight = synapses.weight
    _text(group, "type", "conv" if synapses.is_kernel else "dense")
    group.create_dataset("shape", data=np.array(layer.shape))
    if synapses.is_kernel:
        group.create_dataset("inChannels", data=weight.shape[1] * synapses.groups)
        group.create_dataset("outChannels", data=weight.shape[0])
        group.create_dataset("kernelSize", data=np.array(weight.shape[2:]))
        for name in ("stride", "padding", "dilation"):
            group.create_dataset(name, data=np.array(getattr(synapses, name)))
        group.create_dataset("groups", data=synapses.groups)
    else:
        group.create_dataset("inFeatures", data=weight.shape[1])
        group.create_dataset("outFeatures", data=weight.shape[0])
    group.create_dataset("weight", data=weight)
    bias = layer.bias if population is not None else np.rint(layer.bias / layer.unit)
    if bias.any():
        group.create_dataset("bias", data=bias)
    neuron = group.create_group("neuron")
    _text(neuron, "type", "CUBA")
    numbers = {"iDecay": UNITY, "vDecay": UNITY, "vThMant": MAX_VTH}  # of a readout: all is lost in a step, none fires
    if population is not None:
        numbers = {"iDecay": int(population.du) + 1, "vDecay": int(population.dv), "vThMant": int(population.vth)}
    for name, value in {**numbers, "refDelay": 1, "gradedSpike": False}.items():
        neuron.create_dataset(name, data=value)


def _text(group: h5py.Group, name: str, text: str) -> None:
    group.create_dataset(name, data=np.array([text.encode()], dtype="S10"))


def read_net_file(path: Path, max_bytes: int) -> Network:
    """The network of a file, of ours or of lava-dl.

    Raises:
        ConversionError: it is damaged, larger than `max_bytes`, or holds what is not supported.
    """
    try:
        check_hdf5(path, ConversionError)
        with h5py.File(path, "r") as file:
            return _Reader(path, max_bytes).network(file)
    except ConversionError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ConversionError(f"{path}: no .net file that can be read ({type(error).__name__}: {error})") from error


class _Reader:
    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.left = path, max_bytes

    def refuse(self, place: str, problem: str) -> ConversionError:
        return ConversionError(f"{self.path}: {place} {problem}")

    def network(self, file: h5py.File) -> Network:
        group = self.group(file, "layer")
        if not 2 <= len(group) <= MAX_LAYERS:
            raise self.refuse("layer", f"has {len(group)} layers, expected an input and up to {MAX_LAYERS} more")
        shape: tuple[int, ...] | None = None
        layers: list[Layer] = []
        flattens = False
        for index in range(len(group)):
            part, place = self.group(group, str(index)), f"layer/{index}"
            kind = self.text(part, "type", place)
            if kind == "input":
                if "neuron" in part:
                    raise self.refuse(place, "is an input with neurons, which is not supported: leave its neurons out")
                shape = self.shape(part, place)
            elif kind == "flatten":
                flattens = True
            elif kind in ("conv", "dense"):
                if shape is None:
                    if kind == "conv":
                        raise self.refuse(place, "is a convolution, and no input before it tells a shape")
                    shape = (self.array(part, "weight", place).shape[-1],)
                layers.append(self.layer(part, place, kind, len(layers), flattens))
                flattens = False
            else:
                raise self.refuse(place, f"is of the type {kind!r}; input, conv, flatten and dense are supported")
        if shape is None or not layers:
            raise self.refuse("layer", "holds no conv or dense")
        network = Network("fixed_pt", shape, tuple(layers))
        for index in range(len(layers)):
            check_layer(network, index, str(self.path))
        return network

    def layer(self, part: h5py.Group, place: str, kind: str, index: int, flattens: bool) -> Layer:
        for name in ("delay", "weight_rec"):
            if name in part:
                raise self.refuse(place, f"has {name}, which is not supported")
        weight, shape = self.array(part, "weight", place), self.shape(part, place)
        synapses = Synapses(weight, flattens)
        if kind == "conv":
            pairs = [self.pair(part, name, place) for name in ("stride", "padding", "dilation")]
            synapses = Synapses(weight, False, *pairs, groups=int(self.number(part, "groups", place)))
        bias = np.zeros(shape[0])
        if "bias" in part:
            bias = self.array(part, "bias", place).reshape(-1)
        neuron = self.group(part, "neuron")
        kind_of_neuron = self.text(neuron, "type", place)
        if kind_of_neuron not in NEURONS:
            raise self.refuse(
                place, f"has neurons of the type {kind_of_neuron!r}; {' and '.join(NEURONS)} are supported"
            )
        if "gradedSpike" in neuron and self.number(neuron, "gradedSpike", place):
            raise self.refuse(place, "sends graded spikes, which is not supported")
        numbers = [self.number(neuron, name, place) for name in ("iDecay", "vDecay", "vThMant")]
        population = Population(numbers[0] - 1, numbers[1], numbers[2], np.zeros(1))
        return Layer(place, index - 1 if index else INPUT, shape, synapses, bias, population)

    def group(self, group: h5py.Group, name: str) -> h5py.Group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise self.refuse(f"{group.name}/{name}", "is missing, or lies in another file")
        item = group[name]
        if not isinstance(item, h5py.Group):
            raise self.refuse(f"{group.name}/{name}", "is no group")
        return item

    def dataset(self, group: h5py.Group, name: str, place: str) -> Any:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise self.refuse(f"{place}/{name}", "is missing, or lies in another file")
        data = group[name]
        if not isinstance(data, h5py.Dataset) or data.shape is None or data.is_virtual or data.external:
            raise self.refuse(f"{place}/{name}", "holds no values, or lies in another file")
        size = math.prod(data.shape) * max(data.dtype.itemsize, 8)
        if size > self.left:
            raise self.refuse(
                f"{place}/{name}",
                f"takes {size} bytes, {self.left} of max_bytes are left: raise it if you trust the file",
            )
        self.left -= size
        return data

    def array(self, group: h5py.Group, name: str, place: str) -> Doubles:
        data = self.dataset(group, name, place)
        if data.dtype.kind not in "iufb" or data.ndim > 5:
            raise self.refuse(f"{place}/{name}", f"holds {data.dtype} with {data.ndim} axes, expected numbers")
        array = np.array(data[()], dtype=np.float64)
        if array.ndim == 5 and array.shape[4] == 1:  # slayer's kernels have an axis of time
            array = array[..., 0]
        if not np.isfinite(array).all():
            raise self.refuse(f"{place}/{name}", "holds a number that is not finite")
        return array

    def number(self, group: h5py.Group, name: str, place: str) -> float:
        array = self.array(group, name, place)
        if array.size != 1:
            raise self.refuse(f"{place}/{name}", f"holds {array.size} numbers, expected one for the layer")
        return float(array.reshape(())[()])

    def pair(self, group: h5py.Group, name: str, place: str) -> tuple[int, int]:
        array = self.array(group, name, place).reshape(-1)
        if array.size not in (1, 2) or not np.array_equal(array, np.rint(array)):
            raise self.refuse(f"{place}/{name}", f"is {array.tolist()}, expected one or two whole numbers")
        return int(array[0]), int(array[-1])

    def shape(self, group: h5py.Group, place: str) -> tuple[int, ...]:
        array = self.array(group, "shape", place).reshape(-1)
        shape = tuple(int(value) for value in array)
        if not 1 <= len(shape) <= 3 or min(shape) < 1 or math.prod(shape) > 2**31:
            raise self.refuse(f"{place}/shape", f"is {shape}, expected one to three sizes")
        return shape

    def text(self, group: h5py.Group, name: str, place: str) -> str:
        data = self.dataset(group, name, place)
        value = np.asarray(data[()]).reshape(-1)
        if value.size != 1 or not isinstance(value[0], bytes):
            raise self.refuse(f"{place}/{name}", "is no text")
        return value[0].decode("ascii", errors="replace")
