"""Damaged and hostile artefacts, and paths that exist."""

import json
import os
import zipfile

import pytest
import torch
from lynxi_nets import exported, inputs, small_net

from spikecore.errors import ConversionError, ShapeError
from spikecore.interfaces import Artefact
from spikecore_deploy_lynxi import Lynxi

X = inputs((5,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of an artefact with all forms."""
    path = exported(small_net(), X, tmp_path_factory.mktemp("whole"), files="all").path
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture
def path(whole, tmp_path):
    directory = tmp_path / "net"
    directory.mkdir()
    for name, content in whole.items():
        (directory / name).write_bytes(content)
    return directory


def refused(path, match, **options):
    with pytest.raises(ConversionError, match=match):
        Lynxi(**options).simulate(Artefact(path), X)


def changed(path, change):
    """Rewrite the manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def replaced(path, name, content):
    """A file that the manifest describes, as whoever forges one would do."""
    import hashlib

    (path / name).write_bytes(content)
    about = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    changed(path, lambda manifest: manifest["files"].update({name: about}))


RUNS = {"torchscript": "net.pt", "onnx": "net.onnx", "export": "net.pt2"}


@pytest.mark.parametrize("runs", RUNS)
def test_shortened(path, whole, runs):
    content = whole[RUNS[runs]]
    for length in range(1, len(content) - 1, len(content) // 5):
        replaced(path, RUNS[runs], content)
        (path / RUNS[runs]).write_bytes(content[:length])
        refused(path, "manifest describes", runs=runs)
        replaced(path, RUNS[runs], content[:length])
        refused(path, RUNS[runs], runs=runs)


def test_a_changed_byte(path, whole):
    content = bytearray(whole["net.pt"])
    content[len(content) // 2] ^= 1
    (path / "net.pt").write_bytes(bytes(content))
    refused(path, "sha256")


def test_missing_and_linked_files(path, tmp_path):
    os.replace(path / "net.pt", tmp_path / "elsewhere")
    refused(path, "net.pt")
    (path / "net.pt").symlink_to(tmp_path / "elsewhere")
    refused(path, "net.pt")
    refused(tmp_path / "nothing", "expected the directory")


def test_too_large(path):
    refused(path, "max_bytes", max_bytes=100)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"form": 2}', "[" * 100_000, '{"form": 1}'])
def test_no_manifest(path, text):
    (path / "manifest.json").write_text(text)
    refused(path, r"manifest\.json")


HOSTILE = {
    "a file elsewhere": lambda m: m["files"].update({"../../etc/passwd": m["files"]["net.pt"]}),
    "a dynamic shape": lambda m: m["input"]["shape"].__setitem__(0, -1),
    "an axis without a size": lambda m: m["input"]["shape"].__setitem__(0, None),
    "more values than there are": lambda m: m["input"].update(shape=[21, 2**39]),
    "more than four axes": lambda m: m["input"].update(shape=[21, 1, 1, 1, 5]),
    "other rows": lambda m: m["output"].update(shape=[20, 4]),
    "another output": lambda m: m["output"].update(shape=[21, 5]),
    "another T": lambda m: m["lead"].__setitem__(0, 8),
    "a layer too many": lambda m: m["layers"].append(m["layers"][0]),
    "another dtype": lambda m: m["input"].update(dtype="complex64"),
    "no layers": lambda m: m.update(layers=3),
    "a size that is text": lambda m: m["files"]["net.pt"].update(bytes="many"),
    "a size beyond memory": lambda m: m["files"]["net.pt"].update(bytes=2**39),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests(path, name):
    changed(path, HOSTILE[name])
    refused(path, str(path))


def test_another_shape_than_that_of_the_export(path):
    for other in (inputs((5,), num_steps=6), inputs((5,), batch=1), inputs((6,))):
        with pytest.raises(ShapeError, match=r"\[7, 3, 5\]"):
            Lynxi().simulate(Artefact(path), other)


def scripted(path, function):
    """A script with other methods than ours."""
    script = torch.jit.script(function)
    script.save(path / "forged")
    return (path / "forged").read_bytes()


class Loops(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[0]

    @torch.jit.export
    def layers(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        while True:
            x = x + 1
        return x[:, :4], x[:, :4]


class Allocates(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[0]

    @torch.jit.export
    def layers(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.zeros([1 << 40])
        return x[:, :4] + y[0], x[:, :4]


class NoLayers(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(("forged", "word"), [(Loops(), "Loop"), (Allocates(), "zeros"), (NoLayers(), "layers")])
def test_scripts_of_others_do_not_run(path, forged, word):
    """They are looked at before; a loop without end would hang, an allocation would fail."""
    replaced(path, "net.pt", scripted(path, forged))
    refused(path, word)


def test_an_archive_that_unpacks_to_more_than_is_accepted(path, whole):
    with zipfile.ZipFile(path / "bomb", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", bytes(50_000_000))
    content = (path / "bomb").read_bytes()
    assert len(content) < 100_000
    replaced(path, "net.pt", content)
    refused(path, "unpacks to 50000000", max_bytes=1_000_000)


def test_onnx_that_reads_other_files_or_has_other_operators(path, whole):
    import onnx

    model = onnx.load_from_string(whole["net.onnx"])
    weight = model.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="secret")
    replaced(path, "net.onnx", model.SerializeToString())
    refused(path, "another file", runs="onnx")
    model = onnx.load_from_string(whole["net.onnx"])
    model.graph.node[0].op_type = "ConstantOfShape"
    replaced(path, "net.onnx", model.SerializeToString())
    refused(path, "ConstantOfShape", runs="onnx")


def test_a_form_that_was_not_written(tmp_path):
    artefact = exported(small_net(), X, tmp_path)
    refused(artefact.path, r"no net\.onnx", runs="onnx")


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_paths_that_exist(tmp_path, kind):
    path = tmp_path / "net"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConversionError, match="exists"):
        exported(small_net(), X, tmp_path)
    assert os.path.lexists(path)
    assert kind != "file" or path.read_text() == "mine"
