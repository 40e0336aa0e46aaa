"""Runs that use no dataset, no labels, or nothing at all: a trainer names its roles, and a run has those tables."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.documents import parse_toml
from spikecore.errors import ConfigError, ContractError, IncompatiblePluginError
from spikecore.interfaces.component import Configurable
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import DEFAULT_ROLES, TrainerCapabilities
from spikecore.kinds import KINDS
from spikecore.registry import Blocking, Registry, use
from spikecore.run import compare, probe
from spikecore.run.build import prepare
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.config import _defaults, resolve
from spikecore.run.context import Context
from spikecore.run.experiment import evaluate, load, resume
from spikecore.run.record import NetRecord, Record
from spikecore.run.report import build
from spikecore.run.roles import ROLES, tables_for
from spikecore.trainers import Trainer
from spikecore.trainers.classify import Classify
from tests.run.toy_trainers import Alone, Reconstruct, Walker

WALK = {"trainer": {"name": "walker", "epochs": 2, "episodes": 3}, "run": {"checkpoint_every_steps": 3}}
COPY = {
    "trainer": {"name": "reconstruct"},
    "dataset": {"test_share": 0.5},
    "encoder": {"name": "poisson", "num_steps": 3},
    "run": {"checkpoint_every_steps": 2},
}
ALONE = {"trainer": {"name": "alone"}}
TABLES = {"walker": WALK, "reconstruct": COPY, "alone": ALONE}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def mine():
    with use(Registry(blocking=Blocking())) as registry:
        for name, trainer in (("walker", Walker), ("reconstruct", Reconstruct), ("alone", Alone)):
            registry.register("trainer", name, trainer)
        yield registry


def spike(*arguments):
    done = CliRunner().invoke(spike_command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.stdout


def written(path, tables):
    lines = []
    for table, options in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    path.write_text("\n".join(lines))
    return path


def stopped_at(monkeypatch, count, resolved, out):
    """A run that is interrupted at a safe point."""
    checkpoint = Context.checkpoint

    def stop(self, *arguments):
        self.stopping = self.count + 1 == count
        checkpoint(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(resolved, out=out)


def weights(directory):
    return {name: value.clone() for name, value in load(directory).state_dict().items()}


@pytest.mark.parametrize("name", TABLES)
def test_printed_configurations_hold_the_tables_of_the_roles_and_resolve_to_themselves(name, tmp_path):
    printed = spike("run", written(tmp_path / "c.toml", TABLES[name]), "--print-config")
    roles = {"walker": ["environment", "model", "neuron", "backend"], "alone": []}
    between = roles.get(name, ["dataset", "encoder", "model", "neuron", "backend"])
    assert list(parse_toml(printed)) == ["run", *between, "trainer", "plugins"]
    assert resolve(parse_toml(printed)).to_toml() == printed
    if name == "walker":
        assert '[environment]\nname = "corridor"\nlength = 6\nmax_steps = 20' in printed
        assert 'name = "mlp"\nhidden = [16]' in printed  # the trainer's own default


def test_a_run_is_called_after_its_environment_or_else_its_trainer():
    assert resolve(WALK).tables["run"].name == "corridor"
    assert resolve(WALK, ["environment.name=long walk"]).tables["run"].name == "long-walk"
    assert resolve(ALONE).tables["run"].name == "alone"


@pytest.mark.parametrize("name", TABLES)
def test_a_dry_run_tells_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = spike("run", written(tmp_path / "c.toml", TABLES[name]), "--dry-run")
    # mlp 6-16-2 and 6-16-1; mlp 64-12-64; linear 2-1 without bias
    parameters = {"walker": 2 * (6 * 16 + 16) + 17 * 2 + 17, "reconstruct": 65 * 12 + 13 * 64, "alone": 2}[name]
    # of each of ten classes a tenth is held back
    samples = ", 809 training samples, 90 validation samples" if name == "reconstruct" else ""
    assert said == f"sound: {parameters} parameters on cpu{samples}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


@pytest.mark.parametrize(("name", "count"), [("walker", 1), ("walker", 8), ("reconstruct", 3), ("reconstruct", 11)])
def test_they_resume_to_the_same_bits(name, count, tmp_path, monkeypatch):
    resolved = resolve(TABLES[name])
    whole = spikecore.run(resolved, out=tmp_path / "whole")
    stopped_at(monkeypatch, count, resolved, tmp_path / "parts")
    state = (
        CheckpointStore(tmp_path / "parts", Record.read(tmp_path / "parts").id).read(f"checkpoint-{count:08d}").state
    )
    if name == "walker" and count == 8:
        assert state["trainer"]["place"] is not None, "the walker is in the middle of an episode"
    torch.manual_seed(99)
    assert spike("run", "--resume", tmp_path / "parts", "--dry-run").endswith(f"checkpoint-{count:08d}\n")
    again = resume(tmp_path / "parts")
    assert again.metrics == whole.metrics
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_the_walker_learns_and_a_longer_walk_is_the_same_as_one_planned_so(tmp_path):
    short = {**WALK, "run": {"report": False, "seed": 4}, "trainer": {"name": "walker", "epochs": 2}}
    spikecore.run(short, out=tmp_path / "parts")
    longer = resume(tmp_path / "parts", overrides=["trainer.epochs=8"])
    whole = spikecore.run({**short, "trainer": {"name": "walker", "epochs": 8}}, out=tmp_path / "whole")
    assert longer.metrics == whole.metrics == {"test_return": 1.0}
    before = prepare(resolve(short))
    assert before.trainer.evaluate(before.task, before.context)["test_return"] < 1.0


@pytest.mark.parametrize("name", TABLES)
def test_eval_compare_and_report_show_what_they_have(name, tmp_path):
    out = tmp_path / "r"
    result = spikecore.run(TABLES[name], out=out)
    *validated, metric = result.metrics
    assert validated == (["val_error"] if name == "reconstruct" else [])
    assert evaluate(out).metrics == pytest.approx({metric: result.metrics[metric]})
    assert spike("eval", out).split() == [metric, f"{result.metrics[metric]:.4f}"]
    head, line = compare.rows(compare.read([out]))
    assert head[:2] == ["run", "status"]
    assert metric in head
    assert line[0][1] == "finished"
    record = Record.read(out)
    assert record.task == {"walker": "environment"}.get(name, "unsupervised")
    assert record.classes == []
    html = build(out)
    curve = validated[0] if validated else metric
    assert f'<figure id="{curve}"' in html
    assert "onfusion" not in html
    assert "trainer " + name in html
    assert ("dataset digits" in html) == (name == "reconstruct")
    if name == "alone":
        assert "The net has no layer of spiking neurons." in html
        assert record.notes == []
        return
    assert record.notes == []
    seen = probe.read(probe.path_of(out, "after"))
    layers = {layer["name"]: layer for layer in seen["layers"]}
    assert list(layers) == {"walker": ["actor.layers.1", "critic.layers.1"]}.get(name, ["layers.1"])
    assert all(0 < layer["rate"] < 1 for layer in layers.values())
    assert 'id="raster-after-' in html
    if name == "walker":
        assert seen["num_samples"] == 6
        assert "above, the number of each sample" in html


class Blind(Walker):
    """Gives no example of what it sees."""

    def example(self, task):
        return None


def test_a_report_without_an_example_says_once_what_to_write(tmp_path, mine, monkeypatch):
    mine.register("trainer", "blind", Blind)
    tables = {**WALK, "trainer": {**WALK["trainer"], "name": "blind"}}
    checkpoint = Context.checkpoint

    def stop(self, score=None):
        self.stopping = score is not None  # after the first epoch
        checkpoint(self, score)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(tables, out=tmp_path / "r")
    resume(tmp_path / "r")
    (note,) = Record.read(tmp_path / "r").notes
    assert note.startswith(
        "What the net's neurons do is not shown, and silent layers are not told: the task has no data"
    )
    assert "let the trainer's example(task) return a few inputs [T, B, *input_shape]" in note
    html = build(tmp_path / "r")
    assert html.count("the task has no data") == 1
    assert "were not fed, so nothing is shown of actor.layers.1, critic.layers.1." in html
    assert "no layer of spiking" not in html
    assert "RunError" not in html


def test_the_probe_shows_the_example_itself():
    prepared = prepare(resolve(WALK, ["environment.length=4"]))
    actor = prepared.task.model["actor"]
    with torch.no_grad():
        actor.layers[0].weight.zero_()
        actor.layers[0].bias.zero_()
        actor.layers[0].weight[5, 2] = 50.0  # one neuron, which the third cell alone drives
    seen = probe.probe(prepared.task, prepared.context, prepared.trainer.example(prepared.task))
    layer = seen["layers"][0]
    assert layer["spikes"].shape == (4, 3, 16)
    assert layer["spikes"][:, :, 5].tolist() == [[0] * 3, [0] * 3, [1] * 3, [0] * 3]
    assert layer["spikes"].sum() == 3
    assert seen["labels"] == []


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (
            {**WALK, "dataset": {"name": "digits"}, "encoder": {"num_steps": 2}},
            ["[dataset]: trainer 'walker' has no use for this table", "[encoder]: trainer 'walker' has no use"],
        ),
        ({**ALONE, "backend": {"name": "torch"}}, ["[backend]: trainer 'alone' has no use"]),
        ({"environment": {"length": 4}}, ["[environment]: trainer 'classify' has no use for this table"]),
        (
            {**WALK, "environment": {"lenght": 4, "max_steps": 0}},
            [
                "environment.lenght: is unknown; did you mean 'length'? (options: name, length, max_steps)",
                "environment.max_steps: must be >= 1, got 0",
            ],
        ),
        ({**WALK, "enviroment": {}}, ["enviroment: no such table; did you mean [environment]?"]),
    ],
)
def test_tables_outside_the_roles_and_wrong_options_are_refused_by_name(tables, says):
    with pytest.raises(ConfigError) as caught:
        resolve(tables)
    assert len(caught.value.problems) == len(says)
    for line in says:
        assert line in str(caught.value)


def test_an_override_outside_the_roles_is_refused():
    with pytest.raises(
        ConfigError, match=r"\[dataset\]: trainer 'walker' has no use .*its tables: \[run\], \[environm"
    ):
        resolve(WALK, ["dataset.test_share=0.5"])


def declaring(**members):
    return type("Declaring", (Alone,), members)


@dataclass(frozen=True)
class Empty:
    pass


@dataclass
class Loose:
    x: int = 1


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        (
            declaring(capabilities=TrainerCapabilities(roles=("environment",))),
            "role 'environment', which no kind of component fills",
        ),
        (declaring(capabilities=TrainerCapabilities(roles=("enviroment",))), "did you mean 'environment'?"),
        (declaring(role_configs={"environment": Empty}), "role_configs for 'environment', which its capabilities"),
        (
            declaring(capabilities=TrainerCapabilities(roles=("neuron",)), role_configs={"neuron": Empty}),
            "role_configs for 'neuron', which a neuron fills",
        ),
        (
            declaring(capabilities=TrainerCapabilities(roles=("environment",)), role_configs={"environment": Loose}),
            "must be a frozen dataclass",
        ),
        (declaring(role_defaults={"model": {"name": "mlp"}}), "role_defaults for 'model'"),
    ],
)
def test_a_trainer_whose_roles_do_not_hold_is_refused(trainer, says, mine):
    mine.register("trainer", "declaring", trainer)
    with pytest.raises(ConfigError) as caught:
        resolve({"trainer": {"name": "declaring"}})
    assert len(caught.value.problems) == 1
    assert "trainer 'declaring'" in str(caught.value)
    assert says in str(caught.value)


def test_a_role_without_a_default_needs_its_table(mine, monkeypatch):
    """Adding a role is adding a row: a second net, the teacher, of another table."""
    teacher = dataclasses.replace(ROLES["model"], name="teacher", has_default=False)
    monkeypatch.setitem(ROLES, "teacher", teacher)
    monkeypatch.setattr("spikecore.run.roles.TABLES", ("run", *ROLES, "trainer", "plugins"))
    monkeypatch.setattr("spikecore.run.config.TABLES", ("run", *ROLES, "trainer", "plugins"))

    def both(self, parts):
        return Task(nn.ModuleDict({"student": parts.model((4,), 3), "teacher": parts.build("teacher", (4,), 3)}))

    roles = ("teacher", "model", "neuron")
    mine.register("trainer", "taught", declaring(capabilities=TrainerCapabilities(roles=roles), prepare=both))
    tables = {"trainer": {"name": "taught"}, "model": {"name": "mlp", "hidden": [5]}}
    with pytest.raises(ConfigError, match=r"\[teacher\]: this run needs the table; set teacher\.name to a model"):
        resolve(tables)
    prepared = prepare(resolve({**tables, "teacher": {"name": "mlp", "hidden": [7]}}))
    assert prepared.task.model["teacher"].layers[0].out_features == 7
    assert prepared.task.model["student"].layers[0].out_features == 5
    assert prepared.nets == {"student": NetRecord("model", (4,), 3), "teacher": NetRecord("teacher", (4,), 3)}


def test_parts_give_the_declared_roles_only(mine):
    def greedy(self, parts):
        return parts.dataset()

    mine.register("trainer", "greedy", declaring(prepare=greedy))
    with pytest.raises(ContractError, match=r"asked for the role .dataset., which its capabilities\.roles do not name"):
        prepare(resolve({"trainer": {"name": "greedy"}}))


def test_the_default_configuration_fills_the_roles_that_say_so():
    assert [role for role in ROLES if ROLES[role].has_default] == [role for role in ROLES if role in _defaults()]
    assert tables_for(DEFAULT_ROLES) == (
        "run",
        "dataset",
        "encoder",
        "model",
        "neuron",
        "backend",
        "trainer",
        "plugins",
    )
    assert set(_defaults()) == set(tables_for(DEFAULT_ROLES))


def test_a_trainer_built_for_the_old_contract_is_refused_by_name(mine):
    class Old(Configurable):
        """As trainers were before they prepared their task."""

        capabilities = TrainerCapabilities()
        fit = evaluate = state_dict = load_state_dict = Classify.evaluate

    with pytest.raises(IncompatiblePluginError, match=r"'old'.* speaks api_version 1 of trainer; .* understands 3"):
        mine.register("trainer", "old", Old)
    assert KINDS["trainer"].api_versions == {3}
    assert Trainer.api_version == 3


LOAD = """
import sys, torch, spikecore
from spikecore.registry import Registry, use
with use(Registry()) as here:
    net = spikecore.load(sys.argv[1])
print(sorted(net.state_dict()))
"""


def test_a_net_loads_without_its_data_and_its_trainer(tmp_path, mine):
    """Also from a copy, in a process where neither exists, and with options that nothing there understands."""
    mine.register("dataset", "elsewhere", type("Elsewhere", (mine.load("dataset", "digits"),), {}))
    tables = {"dataset": {"name": "elsewhere"}, "model": {"name": "mlp", "hidden": [8]}, "neuron": {"tau": 3.0}}
    for name, more in (("labelled", {"trainer": {"epochs": 1}}), ("copied", {"trainer": {"name": "reconstruct"}})):
        spikecore.run({**tables, **more}, out=tmp_path / name)
        net = load(tmp_path / name)
        subprocess.run(["cp", "-r", tmp_path / name, tmp_path / "copy"], check=True)
        with use(Registry(blocking=Blocking())):
            alone = spikecore.load(tmp_path / "copy")
            with pytest.raises(ConfigError, match=r"dataset\.name: no dataset 'elsewhere'"):
                evaluate(tmp_path / "copy")
        x = torch.rand(5, 3, 1, 8, 8)
        assert torch.equal(alone(x), net(x))
        assert net.layers[1].config.tau == 3.0
        assert not alone.training
        subprocess.run(["rm", "-r", tmp_path / "copy"], check=True)
    assert Record.read(tmp_path / "labelled").net == NetRecord("model", (1, 8, 8), 10)
    assert Record.read(tmp_path / "labelled").classes == [str(digit) for digit in range(10)]
    assert Record.read(tmp_path / "copied").net.num_outputs == 64


def test_several_nets_load_in_a_process_that_lacks_their_trainer(tmp_path):
    spikecore.run(WALK, out=tmp_path / "r")
    assert Record.read(tmp_path / "r").nets == {
        "actor": NetRecord("model", (6,), 2),
        "critic": NetRecord("model", (6,), 1),
    }
    with pytest.raises(ConfigError, match="has not one net but 'actor', 'critic'"):
        _ = Record.read(tmp_path / "r").net
    command = [sys.executable, "-c", LOAD, str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{sorted(load(tmp_path / 'r').state_dict())}\n"


def test_a_net_that_the_trainer_made_needs_the_trainer(tmp_path):
    spikecore.run(ALONE, out=tmp_path / "r")
    assert Record.read(tmp_path / "r").nets == {}
    assert load(tmp_path / "r").weight.norm().item() == pytest.approx(Record.read(tmp_path / "r").metrics["norm"])
    with use(Registry(blocking=Blocking())), pytest.raises(ConfigError, match=r"trainer\.name: no trainer 'alone'"):
        load(tmp_path / "r")


def test_a_net_loads_on_another_backend_where_its_own_is_not(tmp_path, mine):
    reference = mine.load("backend", "torch")
    mine.register("backend", "far", type("Far", (reference,), {}))
    tables = {"model": {"name": "mlp", "hidden": [8]}, "backend": {"name": "far"}, "trainer": {"epochs": 0}}
    spikecore.run({**tables, "run": {"report": False}}, out=tmp_path / "r")
    with use(Registry(blocking=Blocking())):
        with pytest.raises(ConfigError, match=r"backend\.name: no backend 'far'.*\n.*backend='auto'"):
            load(tmp_path / "r")
        assert load(tmp_path / "r", backend="auto")(torch.rand(2, 1, 1, 8, 8)).shape == (2, 1, 10)
