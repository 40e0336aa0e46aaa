"""Overrides of any depth: what stays, what goes, and how a fault is told."""

import pytest

from spikecore.errors import ConfigError
from spikecore.interfaces.component import make_config
from spikecore.nn import LIF, ATan, Sigmoid
from spikecore.nn.losses import TET, MembraneMSE
from spikecore.registry import registry, use
from spikecore.run.config import resolve
from spikecore.run.overrides import expand_keys, join_changes, merge, parse_settings
from spikecore.trainers.classify import Classify
from spikecore.trainers.optimizers import SGD, AdamW

TOML = """
[neuron]
tau = 3.0
surrogate = { name = "sigmoid", alpha = 5.0 }
[trainer]
loss = { name = "membrane_mse", over = "max", on = 2.0 }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(TOML)
    return path


def neuron(*overrides, source=None):
    return resolve(source, overrides).tables["neuron"]


def trainer(*overrides, source=None):
    return resolve(source, overrides).tables["trainer"]


def test_an_inner_option_changes_and_the_others_stay(file):
    assert neuron("neuron.surrogate.alpha=3").surrogate == ATan(alpha=3)
    assert neuron("neuron.surrogate.spiking=false", source=file).surrogate == Sigmoid(alpha=5.0, spiking=False)
    assert neuron("neuron.surrogate.alpha=3", source=file).tau == 3.0
    assert trainer("trainer.loss.on=3", source=file).loss == MembraneMSE(over="max", on=3.0)
    assert trainer("trainer.optimizer.weight_decay=0.5").optimizer == AdamW(weight_decay=0.5)


def test_another_name_drops_the_options_of_the_one_before(file):
    assert neuron("neuron.surrogate.name=atan", source=file).surrogate == ATan()
    assert neuron("neuron.surrogate=atan", source=file).surrogate == ATan()
    assert neuron("neuron.surrogate.name=sigmoid", source=file).surrogate == Sigmoid(alpha=5.0), "the same name"
    assert trainer("trainer.loss.name=tet", source=file).loss == TET()
    assert not hasattr(neuron("neuron.name=if", source=file), "tau")


@pytest.mark.parametrize(
    ("overrides", "dropped"),
    [
        (["neuron.name=if"], ["neuron.tau, neuron.surrogate of the configuration do not apply"]),
        (["neuron.name=if", "neuron.surrogate.alpha=3"], ["neuron.tau, neuron.surrogate.name of the configuration do"]),
        (["neuron.name=if", "neuron.surrogate=atan"], ["neuron.tau of the configuration does not apply"]),
        (["neuron.name=cuba_lif", "neuron.surrogate={name='sigmoid',alpha=2.0}"], ["neuron.tau of"]),
        (["neuron.surrogate=sigmoid"], ["neuron.surrogate.alpha of the configuration does not apply"]),
        (["trainer.loss.name=tet"], ["trainer.loss.over, trainer.loss.on of the configuration do not apply"]),
        (
            ["trainer.loss.name=tet", "neuron.surrogate.name=atan"],
            ["trainer.loss.over, trainer.loss.on", "neuron.surr"],
        ),
        # Nothing that the file says is dropped:
        (["neuron.name=lif"], []),
        (["neuron.tau=4", "neuron.surrogate.alpha=3", "neuron.surrogate.name=sigmoid"], []),
        (["neuron.surrogate={name='sigmoid',spiking=false}"], []),
        (["model.name=mlp", "trainer.optimizer.name=sgd", "encoder.name=poisson", "run.name=other"], []),
    ],
)
def test_options_of_the_file_that_an_override_drops_are_told(overrides, dropped, file):
    lines = resolve(file, overrides).dropped
    assert [line[: len(start)] for line, start in zip(lines, dropped, strict=True)] == dropped
    assert resolve(None, overrides).dropped == (), "the defaults are nobody's choice"


def test_another_trainer_drops_what_the_file_says_of_the_one_before(tmp_path):
    class Other(Classify):
        role_defaults = {"model": {"name": "mlp"}}  # noqa: RUF012

    path = tmp_path / "short.toml"
    path.write_text("[trainer]\nepochs = 1\nbatch_size = 8\n[model]\nhidden = [5]\n")
    own = registry().without(())
    own.register("trainer", "other", Other)
    with use(own):
        (line,) = resolve(path, ["trainer.name=other", "trainer.batch_size=16"]).dropped
        assert line == (
            "trainer.epochs of the configuration does not apply: the component that --set names begins with its own "
            "defaults. Give again what it should have, as in --set trainer.epochs=VALUE"
        )
        again = resolve(path, ["trainer.name=other", "trainer.batch_size=16", "trainer.epochs=1", "model.name=mlp"])
        assert again.dropped == (), "the model that this trainer has by default is the one that is named"
        assert again.tables["model"].hidden == (5,)
        assert again.tables["trainer"].epochs == 1


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("overrides", "loss"),
    [
        (("trainer.loss.name=tet", "trainer.loss.mse_weight=0.25"), TET(mse_weight=0.25)),
        (("trainer.loss=tet", "trainer.loss.mse_weight=0.25"), TET(mse_weight=0.25)),
        (('trainer.loss={name="tet", level=2.0}', "trainer.loss.mse_weight=0.25"), TET(mse_weight=0.25, level=2.0)),
    ],
)
def test_the_order_of_overrides_does_not_matter(overrides, loss, turned, file):
    assert trainer(*(overrides[::-1] if turned else overrides), source=file).loss == loss


def test_the_last_of_two_wins():
    assert neuron("neuron.tau=3", "neuron.tau=4").tau == 4
    assert neuron("neuron.surrogate.alpha=3", "neuron.surrogate.alpha=4").surrogate == ATan(alpha=4)


def test_a_place_in_a_list():
    before = {"transforms": [{"name": "crop", "height": 3}, "flip"]}
    change = {"transforms": {"0": {"height": 4}, "1": {"p": 0.5}}}
    wanted = [{"name": "crop", "height": 4}, {"name": "flip", "p": 0.5}]
    assert merge(before, change, "dataset") == {"transforms": wanted}
    assert before["transforms"] == [{"name": "crop", "height": 3}, "flip"], "what was given is not written to"
    with pytest.raises(ConfigError, match=r"dataset.transforms.2: the list has 2 items, numbered from 0"):
        merge(before, {"transforms": {"2": "flip"}}, "dataset")
    assert merge(before, {"transforms": {"²": "flip"}}, "dataset") == {"transforms": {"²": "flip"}}, "no number"


def test_python_takes_tables_instances_and_dotted_keys():
    assert neuron(source={"neuron": {"surrogate": {"alpha": 3}}}).surrogate == ATan(alpha=3)
    assert neuron(source={"neuron.surrogate.alpha": 3}).surrogate == ATan(alpha=3)
    assert neuron(source={"neuron": {"surrogate.alpha": 3, "tau": 4.0}}).tau == 4.0
    given = {"neuron": {"surrogate": Sigmoid(alpha=5.0)}, "trainer": {"optimizer": SGD(momentum=0.5)}}
    resolved = resolve(given, ["neuron.surrogate.spiking=false"])
    assert resolved.tables["neuron"].surrogate == Sigmoid(alpha=5.0, spiking=False)
    assert resolved.tables["trainer"].optimizer == SGD(momentum=0.5)
    assert given["neuron"]["surrogate"] == Sigmoid(alpha=5.0)
    assert make_config(LIF, {"surrogate": {"alpha": 7.0}}).surrogate == ATan(alpha=7.0)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "neuron.surrogate.alfa=3",
            "neuron.surrogate.alfa: is unknown; did you mean 'alpha'? (options: alpha,",
        ),
        ("neuron.surrogate.alpha=-1", "neuron.surrogate.alpha: must be > 0 and < inf, got -1"),
        ("neuron.surrogate.name=ATan2", "neuron.surrogate.name: no surrogate 'ATan2'. Did you mean 'atan'?"),
        ("trainer.loss.name=TeT_", "trainer.loss.name: no loss 'TeT_'. Did you mean 'tet'?"),
        ("trainer.loss.reduction=sum", "trainer.loss.reduction: is set by the component that uses it"),
        ("trainer.weight_decay=1", "trainer.weight_decay: is unknown; use the optimizer's: optimizer.weight_decay"),
        ("trainer.optimizer.betas=[0.9]", "trainer.optimizer.betas: must be two numbers from 0 to below 1, got [0.9]"),
        ('trainer.optimizer={name="sgd",nesterov=true}', "trainer.optimizer.nesterov: needs momentum > 0"),
        ("neuron.tau.x=1", "neuron.tau: must be a single value, and has no options of its own; got a table with 'x'"),
        ("run.name.x=1", "run.name: must be a single value"),
        ("neuron.beta=0.9", "neuron.beta: is unknown; use tau = 1 / (1 - beta) with decay_input=False"),
        ("nueron.tau=3", "nueron: no such table; did you mean [neuron]?"),
        ("trainer=3", "--set trainer=3: write table.key=value"),
        ("trainer..epochs=3", "--set trainer..epochs=3: write table.key=value"),
        ("trainer.readout=rat", "trainer.readout: no readout 'rat'. Did you mean 'rate'"),
        ("neuron.surrogate={}", None),
        ("trainer.readout.x=1", "trainer.readout: given as a table needs a 'name', that of a readout; got the keys x"),
    ],
)
def test_faults_are_told_with_their_whole_path(override, line):
    if line is None:
        assert neuron(override).surrogate == ATan()
        return
    with pytest.raises(ConfigError) as caught:
        resolve(None, [override])
    assert any(problem.startswith(line) for problem in caught.value.problems), caught.value.problems


def test_all_faults_at_once():
    overrides = ["neuron.surrogate.alfa=3", "neuron.tau=0.5", "trainer.optimizer.betas=[1]", "trainer.loss.name=te"]
    with pytest.raises(ConfigError) as caught:
        resolve(None, overrides)
    paths = {line.partition(":")[0] for line in caught.value.problems}
    assert paths == {"neuron.surrogate.alfa", "neuron.tau", "trainer.optimizer.betas", "trainer.loss.name"}


def test_settings_of_one_component():
    settings = parse_settings(["tau=3.0", "surrogate.alpha=2", "surrogate=sigmoid", "learnable=['tau']"])
    assert settings == {"tau": 3.0, "surrogate": {"alpha": 2, "name": "sigmoid"}, "learnable": ["tau"]}
    assert parse_settings(["T=8,16,32", "rates=0.5, 1", "name=a,b", "flags=true,false"]) == {
        "T": [8, 16, 32],
        "rates": [0.5, 1],
        "name": "a,b",
        "flags": "true,false",
    }
    for text in ("tau", "=3", "a..b=1"):
        with pytest.raises(ConfigError, match="expected KEY=VALUE"):
            parse_settings([text])


def test_joining_and_nesting():
    assert join_changes({"a": {"b": 1}}, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    assert join_changes({"a": "x"}, {"a": {"c": 2}}) == {"a": {"name": "x", "c": 2}}
    assert join_changes({"a": [1]}, {"a": {"c": 2}}) == {"a": {"c": 2}}
    assert expand_keys({"a.b.c": 1, "a": {"b.d": 2}}) == {"a": {"b": {"c": 1, "d": 2}}}
