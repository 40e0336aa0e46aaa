"""Makes the process networks of some directories with lava-nc and runs them. Needs numpy and lava-nc, nothing else.

    python run.py DIRECTORY INPUT.npy OUTPUT    one network: INPUT is [T, B, ...], OUTPUT.0.npy the first layer's output
    python run.py JOBS.json                     [[DIRECTORY, INPUT, OUTPUT], ...], one after the other

Samples follow each other in one run: between two of them, states are set back to where they were at first. Outputs are
in the net's steps: every set of synapses delays by a step, and that is taken out.
"""

import json
import pathlib
import sys

import numpy as np

INPUT = -1


def load(directory):
    """(manifest, arrays by name) of a network."""
    directory = pathlib.Path(directory)
    manifest = json.loads((directory / "network.json").read_text(encoding="utf-8"))
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in (directory / "arrays").glob("*.npy")}
    return manifest, arrays


def run(directory, x):
    """The output of every layer, `[T, B, ...]`, for whole numbers `x` `[T, B, ...]`."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi1SimCfg
    from lava.proc.conv import utils

    utils.TORCH_IS_AVAILABLE = False  # in a process of Lava torch may hang, and it rounds to single precision
    manifest, arrays = load(directory)
    num_steps, batch = x.shape[:2]
    span = num_steps + max(manifest["lags"])  # what is on its way when the input ends arrives in the silence after it
    if not num_steps or not batch:
        return [np.zeros((num_steps, batch, *layer["shape"])) for layer in manifest["layers"]]
    samples = np.zeros((batch, span, *x.shape[2:]), dtype=np.int64)
    samples[:, :num_steps] = np.moveaxis(x, 1, 0)
    network = _Network(manifest, arrays, samples.reshape(batch * span, *x.shape[2:]))
    try:
        for index in range(batch):
            if index:
                network.set_back()
            network.source.run(condition=RunSteps(num_steps=span), run_cfg=Loihi1SimCfg(select_tag=manifest["model"]))
        outputs = [np.array(sink.data.get()) for sink in network.sinks]
    finally:
        network.source.stop()
    results = []
    for layer, lag, data in zip(manifest["layers"], manifest["lags"], outputs, strict=True):
        steps = np.moveaxis(data, -1, 0).reshape(batch, span, *data.shape[:-1])
        steps = _torch_order(steps[:, lag : lag + num_steps], 2)
        if "lif" not in layer:
            axes = (-1, *[1] * (len(layer["shape"]) - 1))
            bias = arrays[f"{len(results)}.bias"].reshape(axes)
            steps = steps * layer["unit"] + bias
        results.append(np.moveaxis(steps, 0, 1))
    return results


class _Network:
    """Processes, connected."""

    def __init__(self, manifest, arrays, data):
        from lava.proc.io.sink import RingBuffer as Sink
        from lava.proc.io.source import RingBuffer as Source

        is_fixed = manifest["model"] == "fixed_pt"
        bits = int(np.abs(data).max()).bit_length()
        message_bits = 0 if set(np.unique(data)) <= {0, 1} else bits + 1
        kind = np.int64 if is_fixed else np.float64
        self.source = Source(data=np.moveaxis(_lava_order(data, 1), 0, -1).astype(kind))
        self.starts, self.buffers, self.sinks, outs = [], [], [], []
        for index, layer in enumerate(manifest["layers"]):
            source, shape = layer["source"], _lava_shape(layer["shape"])
            port = self.source.s_out if source == INPUT else outs[source]
            given = manifest["input_shape"] if source == INPUT else manifest["layers"][source]["shape"]
            bits = message_bits if source == INPUT else 0
            synapses, buffer = _synapses(layer, arrays[f"{index}.weight"], given, bits)
            if "dense" in layer and len(given) > 1:
                port = port.transpose([2, 1, 0]) if len(given) == 3 else port
                port = port.flatten()
            port.connect(synapses.s_in)
            self.buffers.append(buffer)
            out = synapses.a_out
            if "lif" in layer:
                population = self._population(layer, arrays, index, shape, is_fixed)
                out.connect(population.a_in)
                if f"{index}.recurrent" in arrays:
                    self._close_loop(population, arrays[f"{index}.recurrent"])
                out = population.s_out
            outs.append(out)
            sink = Sink(shape=shape, buffer=len(data))
            out.connect(sink.a_in)
            self.sinks.append(sink)

    def _population(self, layer, arrays, index, shape, is_fixed):
        from lava.proc.lif.process import LIF

        lif, kind = layer["lif"], np.int64 if is_fixed else np.float64

        def spread(name):
            return np.array(np.broadcast_to(arrays[name.format(index)], shape), dtype=kind)

        number = int if is_fixed else float
        population = LIF(
            shape=shape,
            du=number(lif["du"]),
            dv=number(lif["dv"]),
            vth=number(lif["vth"]),
            v=spread("{}.v"),
            bias_mant=spread("{}.bias"),
            bias_exp=6 if is_fixed else 0,
        )
        self.starts.append((population, spread("{}.v")))
        return population

    def _close_loop(self, population, weight):
        """Spikes come back a step later, which is what a loop of the net does."""
        from lava.proc.dense.process import Dense

        dense = Dense(weights=weight, num_message_bits=0)
        population.s_out.connect(dense.s_in)
        dense.a_out.connect(population.a_in)
        self.buffers.append(dense.a_buff)

    def set_back(self):
        """To the first step: potentials, currents, and what synapses hold for the next step."""
        for population, v in self.starts:
            population.v.set(v)
            population.u.set(np.zeros_like(v))
        for buffer in self.buffers:
            buffer.set(np.zeros(buffer.shape, dtype=np.int64))


def _synapses(layer, weight, given, message_bits):
    """(process, the variable that holds its sums for the next step)."""
    if "dense" in layer:
        from lava.proc.dense.process import Dense

        dense = Dense(weights=weight, num_message_bits=message_bits)
        return dense, dense.a_buff
    from lava.proc.conv.process import Conv

    conv = layer["conv"]
    made = Conv(
        # Lava turns kernels round, and has width before height before channels.
        weight=np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)),
        input_shape=_lava_shape(given),
        stride=tuple(conv["stride"][::-1]),
        padding=tuple(conv["padding"][::-1]),
        dilation=tuple(conv["dilation"][::-1]),
        groups=conv["groups"],
        num_message_bits=message_bits,
    )
    return made, made.a_buf


def _lava_shape(shape):
    return tuple(shape[::-1])


def _lava_order(array, lead):
    return array.transpose(*range(lead), *range(array.ndim - 1, lead - 1, -1))


_torch_order = _lava_order  # the same swap of axes


def main(arguments):
    """Run what the command line says."""
    jobs = [arguments]
    if len(arguments) == 1:
        jobs = json.loads(pathlib.Path(arguments[0]).read_text(encoding="utf-8"))
    for directory, given, output in jobs:
        results = run(directory, np.load(given, allow_pickle=False))
        for index, result in enumerate(results):
            np.save(f"{output}.{index}.npy", result)


if __name__ == "__main__":
    main(sys.argv[1:])
