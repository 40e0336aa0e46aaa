"""Files of strangers: damaged, hostile, foreign. Nothing large is allocated, nothing outside the file is read."""

import h5py
import nir
import numpy as np
import pytest
import torch
from nir_nets import inputs

from spikecore import nn
from spikecore.errors import ConversionError
from spikecore_deploy_nir import NIR


@pytest.fixture
def path(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), nn.LIF(tau=3.0, v_reset=-0.5))
    NIR().export(net, inputs((4,)), tmp_path / "net.nir")
    return tmp_path / "net.nir"


def put(file, name, **options):
    """Replace a dataset."""
    del file[name]
    return file.create_dataset(name, **options)


def test_every_shortened_file_is_refused(path):
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 23):
        path.write_bytes(content[:length])
        with pytest.raises(ConversionError, match=r"net\.nir"):
            NIR().load(path)


def test_changed_bytes_give_a_net_or_a_conversion_error(path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 120):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            NIR().load(path)
        except ConversionError:
            continue


def test_sizes_are_looked_at_before_anything_is_read(path):
    """A terabyte of zeros takes a few bytes on disk."""
    with h5py.File(path, "r+") as file:
        put(file, "node/nodes/n0/weight", shape=(2**19, 2**19), dtype="f4", chunks=(1024, 1024), compression="gzip")
    with pytest.raises(ConversionError, match="max_bytes"):
        NIR().load(path)


def test_a_large_padding_is_refused_before_it_is_padded(tmp_path):
    net = torch.nn.Sequential(nn.Conv2d(1, 1, 3))
    NIR().export(net, inputs((1, 4, 4)), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        put(file, "node/nodes/n0/padding", data=np.array([2**20, 2**20]))
    with pytest.raises(ConversionError, match="more than is supported"):
        NIR().load(tmp_path / "net.nir")


def test_links_out_of_the_file_are_refused(path, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["weight"] = np.ones((3, 4))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/n0/weight"]
        file["node/nodes/n0/weight"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/weight")
    with pytest.raises(ConversionError, match="another file"):
        NIR().load(path)


def test_values_that_lie_in_another_file_are_refused(path, tmp_path):
    (tmp_path / "raw").write_bytes(np.ones(12, np.float32).tobytes())
    with h5py.File(path, "r+") as file:
        place = [(str(tmp_path / "raw"), 0, 48)]
        put(file, "node/nodes/n0/weight", shape=(3, 4), dtype="f4", external=place)
    with pytest.raises(ConversionError, match="another file"):
        NIR().load(path)


def test_graphs_within_graphs_end(path):
    with h5py.File(path, "r+") as file:
        file["node/nodes/again"] = file["node"]
    with pytest.raises(ConversionError, match="deep"):
        NIR().load(path)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("nodes/n1/tau", np.full(3, np.nan), "not finite"),
        ("nodes/n1/tau", np.full(3, -1.0), "positive"),
        ("nodes/n1/tau", np.full(5, 1.0), "shape"),
        ("nodes/n1/tau", "three", "text"),
        ("nodes/n0/weight", np.ones((3, 5), np.float32), "does not take"),
        ("nodes/n0/bias", np.ones(5, np.float32), "bias"),
        ("nodes/n1/type", "GLIF", "not supported"),
        ("nodes/input/shape", np.array([-4]), "negative"),
        ("metadata/spikecore", "{", "damaged"),
        ("metadata/spikecore", '{"form": 7}', "form"),
        ("edges", np.array([[b"input", b"n0"], [b"n0", b"nowhere"]], dtype=object), "no node"),
        ("edges", np.array([[b"n0", b"n1"], [b"n1", b"n0"]], dtype=object), "without input"),
    ],
)
def test_contradictions_are_named(path, name, value, word):
    with h5py.File(path, "r+") as file:
        text = {"dtype": h5py.string_dtype()} if isinstance(value, str) or value.dtype == object else {}
        put(file, f"node/{name}", data=value, **text)
    with pytest.raises(ConversionError, match=word):
        NIR().load(path)


def test_cycles_without_a_rule_are_refused(tmp_path):
    weights = {name: nir.Linear(np.ones((2, 2))) for name in ("a", "b")}
    nodes = {"input": nir.Input({"input": np.array([2])}), **weights, "output": nir.Output({"output": np.array([2])})}
    edges = [("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, edges, type_check=False))
    with pytest.raises(ConversionError, match="cycle"):
        NIR().load(tmp_path / "net.nir")


def test_a_subgraph_is_opened(tmp_path):
    """The recurrent part of a net as a graph within the graph."""
    ones = np.ones(2)
    lif = nir.LIF(tau=2.0**-9 * ones, r=ones, v_leak=0 * ones, v_threshold=0.4 * ones)
    inner = nir.NIRGraph(
        {
            "in": nir.Input({"input": np.array([2])}),
            "lif": lif,
            "w": nir.Linear(-np.eye(2)),
            "out": nir.Output({"output": np.array([2])}),
        },
        [("in", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out")],
    )
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "rec": inner,
        "output": nir.Output({"output": np.array([2])}),
    }
    graph = nir.NIRGraph(nodes, [("input", "rec"), ("rec", "output")], type_check=False)
    nir.write(tmp_path / "net.nir", graph)
    net = NIR().load(tmp_path / "net.nir")
    x = torch.ones(6, 1, 2)
    own = nn.LateralRecurrent(nn.LIF(v_threshold=0.4, fires="above", backend="torch"), 2)
    with torch.no_grad():
        own.lateral.weight.copy_(-torch.eye(2))
    assert net(x)[:, 0, 0].tolist() == own(x)[:, 0, 0].tolist() == [1, 0, 1, 0, 1, 0]


def test_a_directory_and_nothing(tmp_path):
    for place in (tmp_path, tmp_path / "missing.nir"):
        with pytest.raises(ConversionError, match=r"expected a \.nir file"):
            NIR().load(place)


def test_places_that_cannot_be_written(tmp_path):
    """What is there stays; a file is replaced."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), nn.LIF())
    (tmp_path / "taken.nir").mkdir()
    (tmp_path / "taken.nir" / "mine").write_text("kept")
    for place in (tmp_path / "taken.nir", tmp_path / "missing" / "net.nir"):
        with pytest.raises(ConversionError, match="cannot be written"):
            NIR().export(net, inputs((4,)), place)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "taken.nir"]
    (tmp_path / "old.nir").write_text("old")
    NIR().load(NIR().export(net, inputs((4,)), tmp_path / "old.nir").path)


def test_files_of_the_oldest_version(path):
    """nir 1.0.4 has no v_reset: it is left out where it is 0, and 0 where it is missing."""
    with h5py.File(path, "r+") as file:
        assert file["version"][()] == b"1.0.4"
        assert set(file["node/nodes/n0"]) == {"type", "weight", "bias"}
        del file["node/nodes/n1/v_reset"]
    lif = NIR().load(path).get_submodule("1")
    assert (lif.config.v_reset, lif.config.tau) == (0.0, 3.0)
    net = torch.nn.Sequential(nn.LIF(tau=3.0))
    NIR().export(net, inputs((4,)), path.with_name("plain.nir"))
    with h5py.File(path.with_name("plain.nir")) as file:
        assert set(file["node/nodes/n0"]) == {"type", "tau", "r", "v_leak", "v_threshold"}
