"""Weights of others: read without running them, fitted key by key, written once, loaded by name."""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import spikecore
from spikecore.errors import CheckpointError, OptionError
from spikecore.nn import LIF
from spikecore.nn.weights import WeightsNote, read_tensors
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove

SHIPPED = "SPIKE_TEST_WEIGHTS"
"""As components.py says; importing it would register its components for all tests of this process."""
COMPONENTS = Path(__file__).with_name("components.py")
SHAPE, OUTPUTS = (1, 3, 4), 5


def theirs(hidden=6):
    """What another library trained: a plain ANN."""
    torch.manual_seed(1)
    return nn.ModuleDict({"fc": nn.Sequential(nn.Linear(12, hidden), nn.ReLU(), nn.Linear(hidden, OUTPUTS))})


@pytest.fixture
def convert(spike, tmp_path):
    """`spike convert-weights FILE`, with the common options and more."""

    def call(file, *options, source="elsewhere", out="ours.safetensors", model="toy-weighted"):
        where = ["--input-shape", "1,3,4", "--num-outputs", OUTPUTS, "--load", COMPONENTS]
        return spike("convert-weights", file, "--from", source, "--model", model, *where, "--out", out, *options)

    return call


@pytest.fixture
def toys():
    with use(Registry(blocking=Blocking())) as own:
        own.load_file(COMPONENTS)
        yield own


def make(**options):
    return spikecore.create("model", "toy-weighted", lambda: LIF(backend="torch"), SHAPE, OUTPUTS, **options)


def test_torch_files_and_safetensors_are_converted(convert, tmp_path, toys):
    source = theirs()
    torch.save(source.state_dict(), "a.pth")
    torch.save({"epoch": 3, "state_dict": source.state_dict(), "optimizer": {"lr": 0.1}}, "b.pth")
    save_file(source.state_dict(), "c.safetensors")
    for index, file in enumerate(("a.pth", "b.pth", "c.safetensors")):
        status, printed = convert(file, out=f"{index}.safetensors")
        assert status == 0, printed
        assert f"4 tensors, {12 * 6 + 6 + 6 * 5 + 5} values, for model toy-weighted from elsewhere" in printed
    written = [load_file(f"{index}.safetensors") for index in range(3)]
    assert all(torch.equal(one[key], written[0][key]) for one in written for key in written[0])
    assert torch.equal(written[0]["last.weight"], source["fc"][2].weight)
    note = read_tensors(Path("0.safetensors"))[1]
    digest = hashlib.sha256(Path("a.pth").read_bytes()).hexdigest()
    assert (note.model, note.options, note.source, note.source_sha256) == (
        "toy-weighted",
        {"hidden": 6, "gain": 1.0},
        "elsewhere",
        digest,
    )
    assert (note.input_shape, note.num_outputs, note.neuron["name"]) == (SHAPE, OUTPUTS, "lif")


def test_what_was_converted_computes_what_the_source_computes(convert, toys, monkeypatch, tmp_path):
    source = theirs()
    torch.save(source.state_dict(), "theirs.pth")
    assert convert("theirs.pth", out="trained.safetensors")[0] == 0
    monkeypatch.setenv(SHIPPED, str(tmp_path))
    for weights in ("trained", Path("trained.safetensors")):
        net = make(weights=weights)
        x = torch.rand(2, 3, *SHAPE)
        current = net.first(x.flatten(2))
        assert torch.equal(current, source["fc"][0](x.flatten(2)))
        assert torch.equal(net(x), source["fc"][2](net.neuron(current)))


def test_options_reach_model_and_neuron(convert, toys):
    torch.save(theirs(hidden=9).state_dict(), "theirs.pth")
    options = ("--set", "hidden=9", "--neuron", "plif", "--set", "neuron.init_tau=3.0")
    status, printed = convert("theirs.pth", *options)
    assert status == 2
    assert "missing     neuron.param_w []" in printed, "the trained tau of plif is not in the file"
    status, printed = convert("theirs.pth", "--set", "hidden=9", "--set", "neuron.tau=3.0")
    assert status == 0, printed
    note = read_tensors(Path("ours.safetensors"))[1]
    assert (note.options["hidden"], note.neuron["tau"]) == (9, 3.0)
    assert make(hidden=9, weights=Path("ours.safetensors")).first.weight.shape == (9, 12)


def test_every_difference_is_listed_and_nothing_is_written(convert):
    state = theirs().state_dict()
    state["fc.0.weight"] = torch.zeros(6, 11)
    state["fc.2.bias"][1] = float("nan")
    state["fc.4.weight"] = torch.zeros(2)
    torch.save(state, "theirs.pth")
    status, printed = convert("theirs.pth")
    assert status == 2
    assert "theirs.pth, read as elsewhere, does not fit WeightedToy:" in printed
    assert "shape       first.weight: expected [6, 12], got [6, 11]" in printed
    assert "unexpected  fc.4.weight [2]" in printed
    assert "not finite  last.bias: 1 of 5 values" in printed
    del state["fc.2.bias"]
    torch.save(state, "theirs.pth")
    status, printed = convert("theirs.pth")
    assert (status, "has no tensor 'fc.2.bias', which model 'toy-weighted' expects of elsewhere" in printed) == (
        2,
        True,
    )
    assert not Path("ours.safetensors").exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (os.system, ("touch evil",))


def test_objects_in_a_file_are_never_run(convert):
    torch.save({"state_dict": theirs().state_dict(), "args": Evil()}, "evil.pth")
    status, printed = convert("evil.pth")
    assert status == 2
    assert re.search(r"evil\.pth: holds more than tensors \([\w.]+\), or is damaged, and Python", printed)
    assert "you have two options" not in printed, "torch's advice is to run the file all the same"
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "neither safetensors nor a file of torch.save"),
        (b"no tensors at all, only text", "torch.save"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{damaged", "is damaged"),
        (None, "cannot be read: No such file"),
    ],
)
def test_damaged_files_are_refused(convert, content, says):
    if content is not None:
        Path("theirs.pth").write_bytes(content)
    status, printed = convert("theirs.pth")
    assert (status, says in printed) == (2, True), printed


def test_files_without_one_dictionary_of_tensors_are_refused(convert):
    for content, says in (
        ({"a": {"w": torch.zeros(1)}, "b": {"w": torch.zeros(1)}}, "got 'a', 'b': save that one alone"),
        ([torch.zeros(1)], "got list without any"),
    ):
        torch.save(content, "theirs.pth")
        status, printed = convert("theirs.pth")
        assert (status, says in printed) == (2, True), printed


def test_wrong_names_and_places_are_told(convert, spike, tmp_path):
    torch.save(theirs().state_dict(), "theirs.pth")
    Path("there.safetensors").touch()
    Path("folder.safetensors").mkdir()
    cases = [
        ({"source": "torchvision"}, (), "does not read weights of torchvision (it reads those of elsewhere)"),
        ({"model": "mlp"}, (), "model 'mlp' does not read weights of elsewhere (it reads none)"),
        ({"model": "toy"}, (), "no model 'toy'"),
        ({}, ("--set", "hiden=3"), "did you mean 'hidden'?"),
        ({}, ("--set", "hidden"), "spike: --set hidden: expected KEY=VALUE, as in tau=3.0"),
        ({}, ("--set", "neuron=3"), "spike: --set neuron=3: name an option of the neuron, as in neuron.tau=3.0"),
        ({}, ("--set", "neuron.tua=3"), "did you mean 'tau'?"),
        ({}, ("--input-shape", "1,x"), "--input-shape 1,x: expected sizes of 1 or more"),
        ({}, ("--input-shape", "1,-3,4"), "--input-shape 1,-3,4: expected sizes of 1 or more"),
        ({"out": "ours.pth"}, (), "ends in .safetensors"),
        ({"out": "there.safetensors"}, (), "--force"),
        ({"out": "folder.safetensors"}, (), "is a directory"),
        ({"out": "no/ours.safetensors"}, (), "there is no directory no"),
    ]
    for changed, options, says in cases:
        status, printed = convert("theirs.pth", *options, **changed)
        assert (status, says in printed) == (2, True), printed
    assert convert("theirs.pth", "--force", out="there.safetensors")[0] == 0
    status, printed = spike("convert-weights", "--help")
    assert status == 0
    for part in ("--from SOURCE", "--set KEY=VALUE", "Exit status", "never run", "--input-shape 3,224,224"):
        assert part in printed


def test_weights_of_another_net_are_refused(convert, toys):
    torch.save(theirs().state_dict(), "theirs.pth")
    assert convert("theirs.pth")[0] == 0
    file = Path("ours.safetensors")
    with pytest.raises(CheckpointError, match=r"gain: 1\.0 there, 2\.0 here"):
        make(gain=2.0, weights=file)
    with pytest.raises(CheckpointError, match="holds the weights of model 'toy-weighted', this net is 'mlp'"):
        spikecore.create("model", "mlp", LIF, SHAPE, OUTPUTS, weights=file)
    with pytest.raises(CheckpointError, match=r"shape       last\.weight"):
        spikecore.create("model", "toy-weighted", LIF, SHAPE, OUTPUTS + 1, weights=file)
    tensors = load_file(file)
    save_file(tensors, "foreign.safetensors")
    assert torch.equal(make(gain=2.0, weights=Path("foreign.safetensors")).first.bias, tensors["first.bias"])
    save_file(tensors, "odd.safetensors", {"spikecore": '{"model": 1}'})
    with pytest.raises(CheckpointError, match="its note on the net is damaged"):
        make(weights=Path("odd.safetensors"))


def test_another_neuron_is_told(convert, toys, recwarn):
    torch.save(theirs().state_dict(), "theirs.pth")
    assert convert("theirs.pth", "--set", "neuron.tau=1.5")[0] == 0
    file = Path("ours.safetensors")

    def with_neuron(**options):
        recwarn.clear()
        neuron = {"tau": 1.5, **options}
        spikecore.create("model", "toy-weighted", lambda: LIF(**neuron), SHAPE, OUTPUTS, weights=file)
        return [str(warning.message) for warning in recwarn if "another neuron" in str(warning.message)]

    assert with_neuron() == []
    assert with_neuron(detach_reset=True, backend="torch") == []  # the numbers of the net are the same
    (message,) = with_neuron(tau=5.0, v_threshold=0.5)
    assert "v_threshold 1.0 there and 0.5 here, tau 1.5 there and 5.0 here" in message


def test_a_note_of_another_version_or_with_other_types_is_refused(convert, toys):
    torch.save(theirs().state_dict(), "theirs.pth")
    assert convert("theirs.pth")[0] == 0
    tensors, note = read_tensors(Path("ours.safetensors"))
    newer = dataclasses.replace(note, options={**note.options, "stem": "deep"})
    save_file(tensors, "newer.safetensors", newer.to_metadata())
    with pytest.raises(CheckpointError, match=r"other options \(stem: 'deep' there, no such option here\)"):
        make(weights=Path("newer.safetensors"))
    older = dataclasses.replace(note, options={"hidden": 6})  # of a version that had no gain yet
    save_file(tensors, "older.safetensors", older.to_metadata())
    assert torch.equal(make(weights=Path("older.safetensors")).first.bias, tensors["first.bias"])
    with pytest.raises(CheckpointError, match=r"other options \(gain: 1\.0 there, 2\.0 here\)"):
        make(gain=2.0, weights=Path("older.safetensors"))
    for name, value in {"options": [], "neuron": "lif", "num_outputs": "5", "input_shape": ["1"]}.items():
        fields = {**dataclasses.asdict(note), name: value}
        save_file(tensors, "damaged.safetensors", {"spikecore": json.dumps(fields)})
        with pytest.raises(CheckpointError, match=f"its note on the net is damaged: expected {name}"):
            make(weights=Path("damaged.safetensors"))


def test_integers_are_no_weights(convert, toys):
    """What a quantized net saves would otherwise be loaded as if -12 were a weight."""
    torch.save(theirs().state_dict(), "theirs.pth")
    assert convert("theirs.pth")[0] == 0
    tensors = load_file("ours.safetensors")
    tensors["first.weight"] = (tensors["first.weight"] * 127).round().to(torch.int8)
    save_file(tensors, "integers.safetensors")
    with pytest.raises(CheckpointError, match=r"dtype       first\.weight: expected torch\.float32, got torch\.int8"):
        make(weights=Path("integers.safetensors"))


def test_unknown_weights_are_answered_with_the_known_ones(toys, monkeypatch, tmp_path):
    with pytest.raises(OptionError, match=r"no weights 'trained' \(it ships none; a file is given as a path"):
        make(weights="trained")
    tmp_path.joinpath("trained.safetensors").touch()
    monkeypatch.setenv(SHIPPED, str(tmp_path))
    with pytest.raises(OptionError, match="did you mean 'trained'"):
        make(weights="traned")


def test_an_option_of_that_name_stays_the_component_s_own(toys):
    from dataclasses import dataclass

    from spikecore.nn import Model

    @spikecore.register("model", "own-weights")
    class OwnWeights(Model):
        @dataclass(frozen=True)
        class Config:
            weights: str = ""

    assert spikecore.create("model", "own-weights", LIF, (3,), 2, weights="x").config.weights == "x"
    with pytest.raises(OptionError, match="weights"):
        spikecore.create("neuron", "lif", weights="x")


def test_the_suite_checks_weights_where_they_are_offered(convert, toys, monkeypatch, tmp_path):
    torch.save(theirs().state_dict(), "theirs.pth")
    assert convert("theirs.pth")[0] == 0
    monkeypatch.setenv(SHIPPED, str(tmp_path))
    report = prove("model", "toy-weighted")
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert report["ok"], report
    assert (outcomes["test_weights_that_ship"], outcomes["test_weight_sources"]) == ("passed", "passed")
    tensors, note = read_tensors(tmp_path / "ours.safetensors")
    wrong = WeightsNote(**{**vars(note), "num_outputs": 4})
    save_file(tensors, tmp_path / "ours.safetensors", wrong.to_metadata())
    report = prove("model", "toy-weighted")
    reasons = {check["name"]: check["reason"] for check in report["checks"] if check["outcome"] == "failed"}
    assert list(reasons) == ["test_weights_that_ship"]
    assert "shape       last.weight" in reasons["test_weights_that_ship"]
