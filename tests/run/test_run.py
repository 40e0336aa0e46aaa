"""From a configuration to a run directory, through the command line and from Python."""

import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import spikecore
from spikecore import create
from spikecore.cli import spike
from spikecore.documents import parse_toml
from spikecore.errors import ConfigError, ShapeError
from spikecore.interfaces.task import Task
from spikecore.nn import LIF, Direct, set_step_mode
from spikecore.registry import Registry, load, use
from spikecore.run.build import device_of, prepare
from spikecore.run.config import _toml, resolve
from spikecore.run.experiment import Context, evaluate

SMALL = ["model.name=mlp", "model.hidden=[8]", "trainer.epochs=2"]


def invoke(*args):
    return CliRunner().invoke(spike, ["run", *args])


def test_the_default_reaches_96_percent_and_repeats_itself(tmp_path):
    first = spikecore.run(out=tmp_path / "a")
    assert first.metrics["test_accuracy"] >= 0.96
    again = spikecore.run(out=tmp_path / "b")
    assert again.metrics == first.metrics
    measured = {**evaluate(first.directory, split="val").metrics, **evaluate(first.directory).metrics}
    assert measured == pytest.approx(first.metrics, abs=1e-6)
    record = json.loads((first.directory / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["components"]["neuron"]["distribution"] == "spikecore"
    assert len(record["backends"]) == 2
    lines = [json.loads(line) for line in (first.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 21))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"] / 10
    net = spikecore.load(first.directory)
    assert net(torch.zeros(4, 3, 1, 8, 8)).shape == (4, 3, 10)


def test_print_config_is_complete_and_resolves_to_itself(tmp_path):
    printed = invoke("--print-config", "--set", "neuron.surrogate={name='sigmoid', alpha=1.5}").output
    path = tmp_path / "c.toml"
    path.write_text(printed)
    assert resolve(path).to_toml() == printed
    assert 'surrogate = { name = "sigmoid", alpha = 1.5, spiking = true }' in printed
    assert "v_threshold = 1.0" in printed


@given(st.floats(1.01, 100), st.integers(0, 2**32 - 1), st.lists(st.integers(1, 64), max_size=3))
@settings(deadline=None, max_examples=50)
def test_any_configuration_survives_printing(tau, seed, hidden):
    tables = {
        "run": {"name": "Ziffern 数字", "seed": seed},
        "neuron": {"tau": tau},
        "model": {"name": "mlp", "hidden": hidden},
    }
    resolved = resolve(tables)
    assert resolve(parse_toml(resolved.to_toml())) == resolved


@given(st.text())
def test_any_text_survives_printing(text):
    assert parse_toml(f"a = {_toml(text)}")["a"] == text
    assert parse_toml(f"a = {_toml({text: [text]})}")["a"] == {text: [text]}


@pytest.mark.parametrize("device", ["cuda:", "cuda:-1", "cuda:²", "cuda:01", "cuda:1\n", "gpu"])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(ConfigError, match=r"run\.device: must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        resolve({"run": {"device": device}})


def test_a_gpu_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of(name).index for name in ("cuda", "cuda:0", "cuda:1")] == [None, 0, 1]
    with pytest.raises(ConfigError, match=r"'cuda:2' was asked for, and the GPUs here are cuda:0 to cuda:1: name one"):
        device_of("cuda:2")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".", "..", ".hidden", "a\nb", "nul\0"])
def test_a_run_name_stays_inside_its_folder(name):
    with pytest.raises(ConfigError, match=r"run\.name: must be a plain file name"):
        resolve({"run": {"name": name}})


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"run": {"seed": 2**64}}, "run.seed: must be a number of at most 63 bits, got one of 65"),
        ({"run": {"seed": -1}}, "run.seed: must be >= 0 and <"),
        ({"backend": {"name": "abacus"}}, "backend.name: no backend 'abacus'"),
        ({"backend": {"keep": "input"}}, "backend.keep: 'auto' takes no options"),
        ({"dataset": {"nmae": "digits"}}, "dataset.nmae: is unknown (options: test_share, split_seed); did you mean"),
        ({"backend": {"name": "torch", "keep": "input"}}, "backend.keep: is unknown"),
        ({"model": {"channels": [8, 0]}}, "model.channels"),
        ({"model": {"name": "mlp", "hidden": [-1]}}, "model.hidden"),
    ],
)
def test_values_out_of_range_are_told_before_anything_is_built(tables, says):
    with pytest.raises(ConfigError) as caught:
        resolve(tables)
    assert says in str(caught.value)


def test_every_fault_is_reported_at_once_with_its_path(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        "[trainr]\nx = 1\n[neuron]\ntua = 2\ntau = 0.5\nsurrogate = {name='atn'}\n[trainer]\nepochs = 'many'\n"
        "[encoder]\nnum_steps = 1.5\n[run]\ndevice = 'gpu'\nprecision = 'float8'\n[dataset]\nname = 'digit'\n"
    )
    with pytest.raises(ConfigError) as caught:
        resolve(path, ["nonsense"])
    text = str(caught.value)
    for part in (
        "trainr: no such table; did you mean [trainer]?",
        "neuron.tua: is unknown; did you mean 'tau'?",
        "neuron.tau: must be >= 1 and < inf, got 0.5",
        "neuron.surrogate.name: no surrogate 'atn'. Did you mean 'atan'?",
        "trainer.epochs: must be a whole number, got 'many'",
        "encoder.num_steps: must be a whole number, got 1.5",
        "run.device: must be 'auto'",
        "run.precision: must be one of 'float32', 'bfloat16'",
        "dataset.name: no dataset 'digit'. Did you mean 'digits'",
        "--set nonsense: write table.key=value",
    ):
        assert part in text
    assert len(caught.value.problems) == 10


@pytest.mark.parametrize(("content", "says"), [(None, "does not exist"), ("a = = 1", "is not TOML"), ("", "is empty")])
def test_unusable_files(content, says, tmp_path):
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        resolve(path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    file = tmp_path / "exp.toml"
    file.write_bytes(b"\xef\xbb\xbf[trainer]\nepochs = 3\n")
    assert resolve(file).tables["trainer"].epochs == 3


@pytest.mark.parametrize("text", ["trainer.epochs=3\nx = 1", "trainer.lr=inf"])
def test_what_a_set_must_not_hold(text):
    with pytest.raises(ConfigError, match=r"trainer\.(epochs|lr): must be"):
        resolve(None, [text])


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        spikecore.run({"trainer": {"epochs": 0}}, out=tmp_path / "file")


def test_a_directory_in_use_is_refused(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match="not empty"):
        spikecore.run(resolve(None, SMALL), out=tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        spikecore.run(resolve(None, SMALL), out=tmp_path / "x" / "y")
    with pytest.raises(ConfigError, match=r"holds no run\.json"):
        evaluate(tmp_path)


def test_an_interrupted_run_says_so_in_its_record(tmp_path, monkeypatch):
    def stop(self, task, context):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikecore.trainers.classify.Classify.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        spikecore.run(resolve(None, SMALL), out=tmp_path / "r")
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert (record["status"], record["exit_status"]) == ("interrupted", 130)


def test_dry_run_builds_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("--dry-run")
    assert result.exit_code == 0
    assert result.output.startswith("sound: ")
    assert not list(tmp_path.iterdir())


def test_a_component_registered_in_this_process_runs(tmp_path):
    class Mine(LIF):
        """A neuron of the user's own."""

    spikecore.register("neuron", "mine", Mine)
    result = spikecore.run(resolve(None, [*SMALL, "neuron.name=mine", "neuron.tau=3.0"]), out=tmp_path / "r")
    record = json.loads((result.directory / "run.json").read_text())
    assert record["components"]["neuron"]["plugin"] == "runtime"


def test_a_model_fits_what_a_widening_encoder_gives():
    class Both(Direct):
        """Each value and what is missing to one."""

        capabilities = dataclasses.replace(Direct.capabilities, keeps_shape=False, decodable=False)

        def encode(self, x, generator):
            return super().encode(torch.cat([x, 1 - x], -1), generator)

    with use(Registry()) as mine:
        mine.register("encoder", "both", Both)
        task = prepare(resolve({"encoder": {"name": "both"}, "model": {"name": "mlp"}})).task
    assert task.model.layers[0].in_features == 2 * 64
    assert task.model(task.sequence(task.train[0][0].unsqueeze(0), None)).shape == (4, 1, 10)


def test_digits_splits_are_disjoint_stratified_and_whole():
    digits = create("dataset", "digits", split_seed=3)
    train, test = digits.split("train"), digits.split("test")
    assert len(train) + len(test) == 1797
    counts = torch.bincount(test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 37
    assert torch.equal(create("dataset", "digits", split_seed=3).split("test").images, test.images)
    assert not torch.equal(create("dataset", "digits", split_seed=4).split("test").images, test.images)
    x, label = train[0]
    assert x.shape == (1, 8, 8)
    assert 0 <= x.min() <= x.max() <= 1
    assert isinstance(label, int)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 12)])
def test_models_stream_and_reach_every_parameter(name, shape):
    torch.manual_seed(0)
    net = create("model", name, lambda: create("neuron", "lif"), shape, 5).eval()
    x = torch.rand(3, 2, *shape) * 3
    out = net(x)
    assert out.shape == (3, 2, 5)
    torch.testing.assert_close(net(x[:, :1]), out[:, :1])
    # While it trains, batch norm keeps an untrained net's deep neurons firing: only then does every weight matter.
    net.train()(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    net.eval()
    out = net(x)
    set_step_mode(net, "single")
    torch.testing.assert_close(torch.stack([net(step) for step in x]), out)


def test_convnet_refuses_small_images():
    with pytest.raises(ShapeError, match="H, W >= 4"):
        create("model", "convnet", torch.nn.Identity, (1, 3, 8), 2)


def test_classify_goes_on_where_it_stopped():
    digits = create("dataset", "digits", test_share=0.9)

    def make():
        torch.manual_seed(0)
        net = create("model", "mlp", lambda: create("neuron", "lif"), (1, 8, 8), 10, hidden=(8,))
        task = Task(net, create("encoder", "poisson"), digits.split("train"), digits.split("test"), 10)
        return task, Context(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(5), net)

    def trainer(epochs):
        return create("trainer", "classify", epochs=epochs, schedule="constant")

    whole, context = make()
    trainer(3).fit(whole, context)
    half, context = make()
    first, second = trainer(2), trainer(3)
    first.fit(half, context)
    second.load_state_dict(first.state_dict())
    second.fit(half, context)
    for ours, theirs in zip(half.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("sets", "name"),
    [([], "digits"), (["dataset.name='toy set'"], "toy-set"), (["run.name=mine", "dataset.name='toy set'"], "mine")],
)
def test_a_run_has_the_name_of_its_dataset_unless_it_has_its_own(sets, name):
    active = Registry()
    active.register("dataset", "toy set", load("dataset", "digits"))
    with use(active):
        resolved = resolve(None, sets)
        assert resolved.tables["run"].name == name
        assert resolve(parse_toml(resolved.to_toml())).tables["run"].name == name
