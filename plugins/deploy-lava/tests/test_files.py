"""Files: what lava-dl's layout holds, round trips, and files of strangers, damaged or hostile."""

import json
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError
from spikecore.interfaces import Artefact
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_lava import Lava, LoihiLIF
from spikecore_deploy_lava.net_file import read_net_file, write_net_file


def spikes_in(shape, seed=0):
    return torch.randint(0, 2, (16, 2, *shape), generator=torch.Generator().manual_seed(seed)).float()


@pytest.fixture
def net():
    parts = [nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.IF(v_threshold=0.75, backend="torch"), nn.Flatten()]
    parts += [torch.nn.Linear(60, 4, bias=False), nn.LIF(tau=4.0, v_threshold=1.5, backend="torch")]
    return settle_weights(torch.nn.Sequential(*parts), 0, -40, 60)


@pytest.fixture
def directory(net, tmp_path):
    return Lava().export(net, spikes_in((2, 4, 5)), tmp_path / "net").path


def test_the_layout_of_lava_dl(directory, net):
    with h5py.File(directory / "network.net") as file:
        types = [file[f"layer/{index}/type"][0].decode() for index in range(4)]
        assert types == ["input", "conv", "flatten", "dense"]
        assert file["layer/0/shape"][()].tolist() == [2, 4, 5]
        assert file["layer/1/shape"][()].tolist() == [3, 4, 5]
        assert file["layer/1/weight"].shape == (3, 2, 3, 3)
        factor = file["layer/1/weight"][()] / net[0].weight.detach().numpy()
        assert np.unique(factor[np.isfinite(factor)]).size == 1
        assert file["layer/1/neuron/vThMant"][()] == 0.75 * np.nanmax(factor) - 1
        assert [int(file[f"layer/3/neuron/{name}"][()]) for name in ("iDecay", "vDecay")] == [4096, 1024]


def test_both_files_give_the_net_again(directory, net):
    x = spikes_in((2, 4, 5), 3)
    out, spikes = record_spikes(net, x)
    assert all(0.02 < float(values.mean()) < 0.98 for values in spikes.values())
    traced = Lava().trace(Lava().export(net, x, directory.with_name("again")), x)
    for path in (directory, directory / "network.net"):
        got, others = record_spikes(Lava().load(path), x)
        assert torch.equal(got, traced["4"])
        assert torch.equal(next(iter(others.values())), spikes["1"])


@st.composite
def random_nets(draw):
    """(net, shape of a sample), without biases: netx, which has no first potential, computes the same."""
    is_image, width = draw(st.booleans()), draw(st.integers(2, 6))
    shape = (2, draw(st.integers(4, 6)), draw(st.integers(4, 6))) if is_image else (width,)
    parts = []
    if is_image:
        options = {"stride": draw(st.sampled_from((1, 2, (2, 1)))), "padding": draw(st.sampled_from((0, 1, (1, 0))))}
        groups = draw(st.sampled_from((1, 2)))
        parts += [nn.Conv2d(2, 4, (3, 2), groups=groups, bias=False, **options), draw(random_neurons())]
        places = torch.nn.Sequential(*parts)(torch.zeros(1, 1, *shape)).shape[-2:]
        if min(places) >= 2 and draw(st.booleans()):
            parts.append(nn.AvgPool2d(2))
        parts.append(nn.Flatten())
        width = torch.nn.Sequential(*parts)(torch.zeros(1, 1, *shape)).shape[-1]
    parts += [torch.nn.Linear(width, 5, bias=False), draw(random_neurons())]
    parts += [torch.nn.Linear(5, 3, bias=False), draw(random_neurons())]
    return settle_weights(torch.nn.Sequential(*parts), draw(st.integers(0, 99)), -40, 60), shape


@st.composite
def random_neurons(draw):
    """With decays that have 12 bits, and others."""
    common = {"v_threshold": draw(st.sampled_from((0.25, 0.7, 1.0))), "backend": "torch"}
    fires = draw(st.sampled_from(("at", "above")))
    kind = draw(st.sampled_from(("if", "lif", "cuba", "loihi")))
    if kind == "loihi":
        return LoihiLIF(du=draw(st.integers(0, 4095)), dv=draw(st.integers(0, 4096)), scale=64, **common)
    if kind == "cuba":
        share = st.floats(0.0, 0.99)
        return nn.CubaLIF(c_decay=draw(share), v_decay=draw(share), fires=fires, **common)
    if kind == "lif":
        return nn.LIF(tau=draw(st.floats(1.0, 50.0)), fires=fires, **common)
    return nn.IF(fires=fires, **common)


@given(random_nets())
@settings(max_examples=25, deadline=None)
def test_random_networks_come_back_from_both_files(net_and_shape):
    """Written and read: the same numbers, the same spikes in every layer, and the same bytes when written again."""
    net, shape = net_and_shape
    x = spikes_in(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Lava().export(net, x, Path(folder) / "net").path
        right = Lava().trace(Artefact(path), x)
        got = Lava().trace(Artefact(path / "network.net"), x)
        for expected, values in zip(right.values(), got.values(), strict=True):
            assert torch.equal(values, expected)
        assert torch.equal(Lava().load(path / "network.net")(x), list(right.values())[-1])
        write_net_file(read_net_file(path / "network.net", 2**20), Path(folder) / "again.net")
        assert Path(folder, "again.net").read_bytes() == (path / "network.net").read_bytes()


def test_a_path_that_exists_is_left_alone(net, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").write_text("kept")
    with pytest.raises(ConversionError, match="exists already"):
        Lava().export(net, spikes_in((2, 4, 5)), tmp_path / "net")
    assert [path.name for path in tmp_path.rglob("*")] == ["net", "mine"]


def test_every_shortened_net_file_is_refused(directory):
    path = directory / "network.net"
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 15):
        path.write_bytes(content[:length])
        with pytest.raises(ConversionError, match=r"network\.net"):
            Lava().load(path)


def test_changed_bytes_give_a_net_or_a_conversion_error(directory):
    path = directory / "network.net"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 60):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            Lava().load(path)
        except ConversionError:
            continue


def put(path, name, **options):
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, **options)


def test_sizes_are_looked_at_before_anything_is_read(directory):
    path = directory / "network.net"
    put(path, "layer/3/weight", shape=(2**19, 2**19), dtype="f4", chunks=(1024, 1024), compression="gzip")
    with pytest.raises(ConversionError, match="max_bytes"):
        Lava().load(path)


def test_links_out_of_the_file_are_refused(directory, tmp_path):
    path = directory / "network.net"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weight"] = np.ones((4, 60))
    with h5py.File(path, "r+") as file:
        del file["layer/3/weight"]
        file["layer/3/weight"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/weight")
    with pytest.raises(ConversionError, match="another file"):
        Lava().load(path)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("layer/3/weight", np.full((4, 60), np.nan), "not finite"),
        ("layer/3/weight", np.full((4, 60), 300.0), "register"),
        ("layer/3/weight", np.full((4, 60), 0.5), "whole"),
        ("layer/3/weight", np.ones((4, 61)), "do not take"),
        ("layer/3/bias", np.ones(5), "biases"),
        ("layer/3/delay", np.ones(60), "delay"),
        ("layer/3/neuron/vThMant", np.array(2.0**20), "register"),
        ("layer/3/neuron/vThMant", np.ones(4), "one for the layer"),
        ("layer/3/neuron/iDecay", np.array(5000), "decays"),
        ("layer/3/neuron/gradedSpike", np.array(True), "graded"),
        ("layer/3/neuron/type", np.array([b"SDNN"]), "SDNN"),
        ("layer/3/type", np.array([b"pool"]), "pool"),
        ("layer/1/padding", np.array([2**20, 2**20]), "do not take"),
        ("layer/0/shape", np.array([-2, 4, 5]), "sizes"),
    ],
)
def test_contradictions_are_named(directory, name, data, word):
    put(directory / "network.net", name, data=data)
    with pytest.raises(ConversionError, match=word):
        Lava().load(directory / "network.net")


def test_damaged_directories(directory):
    manifest = json.loads((directory / "network.json").read_text())
    for change, word in (
        ({"form": 9}, "form"),
        ({"model": "other"}, "other"),
        ({"layers": []}, "layers"),
        ({"input_shape": [2, 4, 6]}, "do not take"),
        ({"layers": [{**manifest["layers"][0], "source": 5}, manifest["layers"][1]]}, "takes layer 5"),
    ):
        (directory / "network.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ConversionError, match=word):
            Lava().load(directory)
    (directory / "network.json").write_text("[" * 100_000)
    with pytest.raises(ConversionError, match="damaged"):
        Lava().load(directory)
    (directory / "network.json").write_text(json.dumps(manifest))
    weight = directory / "arrays" / "1.weight.npy"
    np.save(weight, np.array([{}], dtype=object))
    with pytest.raises(ConversionError, match="damaged"):
        Lava().load(directory)
    header = np.lib.format.magic(1, 0) + (8).to_bytes(2, "little")
    for content in (b"", header + b"{'a': (\n", header + b"{"):
        weight.write_bytes(content)
        with pytest.raises(ConversionError, match="damaged"):
            Lava().load(directory)
    with weight.open("wb") as file:  # a header that promises a terabyte
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**18, 2**19)})
    with pytest.raises(ConversionError, match="damaged"):
        Lava().load(directory)
    with pytest.raises(ConversionError, match="max_bytes"):
        Lava(max_bytes=100).load(directory)


@pytest.mark.parametrize("name", ["network.json", "arrays/1.weight.npy"])
def test_a_pipe_is_not_waited_for(directory, name):
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(ConversionError, match="not a regular file"):
        Lava().load(directory)


def test_damaged_loops(tmp_path):
    parts = [torch.nn.Linear(4, 3, bias=False), nn.LateralRecurrent(nn.IF(), 3)]
    net = settle_weights(torch.nn.Sequential(*parts), 0, -40, 60)
    path = Lava().export(net, spikes_in((4,)), tmp_path / "net").path
    array = path / "arrays" / "0.recurrent.npy"
    for values, word in ((np.ones((3, 4)), "loop of"), (np.full((3, 3), 300.0), "register"), (np.eye(3) / 2, "whole")):
        np.save(array, values)
        with pytest.raises(ConversionError, match=word):
            Lava().load(path)
    array.unlink()
    with pytest.raises(ConversionError, match="damaged"):
        Lava().load(path)
