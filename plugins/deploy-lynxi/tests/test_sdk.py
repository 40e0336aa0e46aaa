"""The calls of the vendor's SDK, against a fake that is built from the recorded description of its interface."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_sdk
import pytest
import torch
from lynxi_nets import exported, inputs, small_net

from spikecore.errors import ConversionError, PluginUnavailable
from spikecore_deploy_lynxi import Lynxi, sdk

X = inputs((5,))


@pytest.fixture
def vendor(monkeypatch):
    """lyngor and lynpy are importable; the calls that they get."""
    for name, module in fake_sdk.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    fake_sdk.CALLS.clear()
    monkeypatch.setattr(fake_sdk.Builder, "fails", False)
    return fake_sdk.CALLS


@pytest.fixture
def no_vendor(monkeypatch):
    """lyngor is not importable, also on a machine that has it."""
    monkeypatch.setitem(sys.modules, "lyngor", None)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_compile_and_run_on_the_chip(tmp_path, vendor, dtype):
    """What the compiler is given is the net: the chip that runs its trace gives what the simulation gives."""
    deployer = Lynxi(dtype=dtype)
    artefact = deployer.export(small_net(), X, tmp_path / "net")
    compiled = deployer.compile(artefact, tmp_path / "apu")
    assert compiled == tmp_path / "apu" / "Net_0"
    named = {(kind, method): arguments for kind, method, arguments in vendor}
    load = named["DLModel", "load"]
    assert (load["in_type"], load["out_type"]) == (dtype, dtype)
    assert load["inputs_dict"] == {"x": (21, 5)}
    assert named["Builder", "build"]["apu_only"] is True
    x = inputs((5,), 1)
    rows = x.flatten(0, 1).to(getattr(torch, dtype)).numpy()
    out = sdk.run_on_chip(str(compiled), rows, (21, 4), dtype)
    right = deployer.simulate(artefact, x)
    assert 0.05 < right.mean() < 0.95
    assert torch.equal(torch.from_numpy(out).float().reshape(7, 3, 4), right)


def test_compile_as_an_option(tmp_path, vendor):
    artefact = Lynxi(compile=True).export(small_net(), X, tmp_path / "net")
    assert (tmp_path / "net" / "apu" / "Net_0").is_dir()
    assert "apu/Net_0" in artefact.notes[-1]
    assert torch.equal(Lynxi().simulate(artefact, X), small_net()(X))


def test_a_compiler_that_fails_leaves_nothing(tmp_path, vendor, monkeypatch):
    monkeypatch.setattr(fake_sdk.Builder, "fails", True)
    with pytest.raises(ConversionError, match="Net_0"):
        Lynxi(compile=True).export(small_net(), X, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_without_the_sdk_the_command_is_told(tmp_path, no_vendor):
    with pytest.raises(PluginUnavailable, match=r"python3 net/compile\.py --out net-apu"):
        Lynxi(compile=True).export(small_net(), X, tmp_path / "net")
    assert not list(tmp_path.iterdir())
    artefact = exported(small_net(), X, tmp_path)
    assert artefact.notes[-1].endswith("python3 net/compile.py --out net-apu")
    with pytest.raises(PluginUnavailable, match=r"lyngor.*python3 net/compile\.py --out net-apu"):
        Lynxi().compile(artefact, tmp_path / "apu")


def run_command(folder, *path):
    """The command of the note, in a process that cannot import spikecore."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['spikecore'] = None\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *map(str, path)])}
    return subprocess.run(
        [sys.executable, "net/compile.py", "--out", "net-apu"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_runs_where_spikecore_is_not(tmp_path):
    """On a machine with the SDK, here the fake one, and without it."""
    exported(small_net(), X, tmp_path)
    (tmp_path / "sdk").mkdir()
    here = Path(__file__).parent
    for name in ("fake_sdk.py", "sdk_interface.json"):
        shutil.copy(here / name, tmp_path / "sdk")
    (tmp_path / "sdk" / "lyngor.py").write_text(
        "import fake_sdk\nlyngor = fake_sdk.modules()['lyngor']\nDLModel, Builder = lyngor.DLModel, lyngor.Builder\n"
    )
    done = run_command(tmp_path, tmp_path / "sdk")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == os.path.join("net-apu", "Net_0")
    assert (tmp_path / "net-apu" / "Net_0" / "trace").is_file()
    again = run_command(tmp_path, tmp_path / "sdk")
    assert again.returncode == 2
    assert "exists" in again.stderr
    shutil.rmtree(tmp_path / "net-apu")
    (tmp_path / "sdk" / "lyngor.py").write_text("raise ImportError('no driver')\n")
    without = run_command(tmp_path, tmp_path / "sdk")
    assert without.returncode == 2
    assert "no driver" in without.stderr
    assert "Traceback" not in without.stderr


def test_another_interface_is_told(tmp_path, vendor, monkeypatch):
    monkeypatch.delattr(sys.modules["lyngor"], "Builder")
    with pytest.raises(PluginUnavailable, match="has no Builder"):
        Lynxi(compile=True).export(small_net(), X, tmp_path / "net")


@pytest.mark.parametrize("damage", ["shortened", "changed", "missing", "shape", "manifest"])
def test_damaged_artefacts_are_not_compiled(tmp_path, vendor, damage):
    artefact = exported(small_net(), X, tmp_path)
    script, manifest = artefact.path / "net.pt", artefact.path / "manifest.json"
    content = script.read_bytes()
    if damage == "shortened":
        script.write_bytes(content[:-1])
    elif damage == "changed":
        script.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        script.unlink()
    elif damage == "shape":
        manifest.write_text(manifest.read_text().replace("21,", "-1,"))
    else:
        manifest.write_text("[")
    with pytest.raises(ConversionError, match=r"net\.pt|manifest"):
        Lynxi().compile(artefact, tmp_path / "apu")
    assert not [call for call in vendor if call[0] == "Builder"]


def test_the_fake_refuses_what_is_not_recorded(vendor):
    lyngor = sys.modules["lyngor"]
    with pytest.raises(TypeError):
        lyngor.DLModel().load("net.pt", model_type="Pytorch", shapes={})
    with pytest.raises(TypeError):
        lyngor.Builder()
    with pytest.raises(AttributeError):
        _ = lyngor.DLModel().graph
