"""Plugins in `spike run`: hooks, `--load`, and plugins that a config switches off."""

import hashlib
import json
import sys

import pytest

import spikecore
from spikecore.errors import BrokenPluginError, ConfigError, PluginError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.config import resolve
from spikecore.run.experiment import resume
from spikecore.testing.distributions import fake_distribution
from spikecore.trainers.classify import Classify

HOOKS = """
from spikecore.registry.hookspecs import hookimpl
seen = []
@hookimpl
def spike_report_header(device): return f"watched on {device}"
@hookimpl
def spike_run_start(directory, record, model):
    seen.append(("start", record["seed"], directory.is_dir(), type(model).__name__))
@hookimpl
def spike_epoch_end(epoch, metrics): seen.append(("epoch", epoch, sorted(metrics)))
@hookimpl
def spike_run_end(status, metrics): seen.append(("end", status, sorted(metrics)))
"""
SMALL = {"trainer": {"epochs": 2}, "encoder": {"num_steps": 1}, "model": {"name": "mlp"}}
NEURON = '''
import spikecore
from spikecore.nn import LIF
@spikecore.register("neuron", "my-lif")
class Mine(LIF):
    """A neuron of one's own."""
'''


@pytest.fixture
def watcher(tmp_path, monkeypatch):
    site = tmp_path / "site"
    fake_distribution(site, "spikecore-w", {"spikecore.plugins": {"w": "w_hooks"}}, modules={"w_hooks.py": HOOKS})
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("w_hooks", None)


@pytest.mark.usefixtures("watcher")
def test_a_run_tells_the_plugins(tmp_path, capsys):
    with use(Registry(blocking=Blocking())):
        result = spikecore.run(SMALL, out=tmp_path / "out")
    seen = sys.modules["w_hooks"].seen
    assert seen[0] == ("start", 0, True, "MLP")
    assert [event[:2] for event in seen[1:]] == [("epoch", 1), ("epoch", 2), ("end", "finished")]
    assert "val_accuracy" in seen[1][2]
    assert seen[-1][2] == sorted(result.metrics)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["header"][-1] == "watched on cpu"
    assert "watched on cpu" in capsys.readouterr().err
    plugins = {plugin["id"]: plugin for plugin in record["plugins"]}
    assert plugins["w"] | {"hooks": True, "version": "1.0", "distribution": "spikecore-w"} == plugins["w"]


def test_plugins_without_a_hook_do_not_get_in_each_others_way(tmp_path, monkeypatch):
    for name in ("one", "two"):
        source = {f"{name}_hooks.py": "quiet = True"}
        fake_distribution(tmp_path, f"spikecore-{name}", {"spikecore.plugins": {name: f"{name}_hooks"}}, modules=source)
    monkeypatch.syspath_prepend(tmp_path)
    hooks = Registry(blocking=Blocking()).hooks
    assert not hooks.failures
    assert {"core", "one", "two"} <= {plugin.id for plugin in hooks.active}


def test_two_plugins_of_one_id_are_told_and_the_first_stays(tmp_path, monkeypatch):
    for name in ("one", "two"):
        source = {f"{name}_hooks.py": HOOKS}
        points = {"spikecore.plugins": {"same": f"{name}_hooks"}}
        fake_distribution(tmp_path, f"spikecore-{name}", points, modules=source)
    monkeypatch.syspath_prepend(tmp_path)
    hooks = Registry(blocking=Blocking()).hooks
    assert [plugin.distribution for plugin in hooks.active if plugin.id == "same"] == ["spikecore-one"]
    assert "spikecore-two" in str(hooks.failures["same"])


@pytest.mark.usefixtures("watcher")
def test_a_disabled_plugin_hears_nothing(tmp_path):
    with use(Registry(blocking=Blocking())):
        spikecore.run({**SMALL, "plugins": {"disable": ["w"]}}, out=tmp_path / "out")
    assert "w_hooks" not in sys.modules
    plugins = json.loads((tmp_path / "out" / "run.json").read_text())["plugins"]
    (mine,) = [plugin for plugin in plugins if plugin["id"] == "w"]
    assert (mine["status"], mine["reason"]) == ("blocked", "switched off by [plugins] disable")


def test_a_failing_hook_ends_the_run_with_its_name(tmp_path, monkeypatch):
    source = HOOKS.replace('seen.append(("epoch", epoch, sorted(metrics)))', "1 / 0")
    fake_distribution(tmp_path / "site", "z", {"spikecore.plugins": {"z": "z_hooks"}}, modules={"z_hooks.py": source})
    monkeypatch.syspath_prepend(tmp_path / "site")
    with use(Registry(blocking=Blocking())), pytest.raises(BrokenPluginError, match="spike_epoch_end failed"):
        spikecore.run(SMALL, out=tmp_path / "out")
    assert sys.modules["z_hooks"].seen[-1][:2] == ("end", "failed")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "failed"


def test_an_error_of_ours_from_a_hook_names_the_plugin(tmp_path, monkeypatch):
    source = HOOKS.replace('seen.append(("epoch", epoch, sorted(metrics)))', "complain()")
    source += """
def complain():
    from spikecore.errors import DatasetError
    raise DatasetError("no data")
"""
    fake_distribution(tmp_path / "site", "v", {"spikecore.plugins": {"v": "v_hooks"}}, modules={"v_hooks.py": source})
    monkeypatch.syspath_prepend(tmp_path / "site")
    says = r"hook module 'v'.*: its spike_epoch_end failed: DatasetError: no data\."
    with use(Registry(blocking=Blocking())), pytest.raises(BrokenPluginError, match=says):
        spikecore.run(SMALL, out=tmp_path / "out")


def test_a_failing_hook_costs_no_epoch(tmp_path, monkeypatch):
    """It is called when the epoch's checkpoint is there, so the run goes on behind it, with the line of the epoch."""
    source = HOOKS.replace('seen.append(("epoch", epoch, sorted(metrics)))', "1 / 0 if epoch == 2 else 0")
    fake_distribution(tmp_path / "site", "y", {"spikecore.plugins": {"y": "y_hooks"}}, modules={"y_hooks.py": source})
    monkeypatch.syspath_prepend(tmp_path / "site")
    tables = {**SMALL, "trainer": {"epochs": 3}}
    with use(Registry(blocking=Blocking())) as mine:
        mine.register("trainer", "quiet", Unscored)
        for name in ("classify", "quiet"):
            out = tmp_path / name
            with pytest.raises(BrokenPluginError, match="spike_epoch_end failed"):
                spikecore.run({**tables, "trainer": {"name": name, "epochs": 3}}, out=out)
            with use(mine.without(["y"])):
                resumed = resume(out)
                spikecore.run({**tables, "trainer": {"name": name, "epochs": 3}}, out=tmp_path / f"{name}-whole")
            assert resumed.metrics == json.loads((tmp_path / f"{name}-whole" / "run.json").read_text())["metrics"]
            record = json.loads((out / "run.json").read_text())
            assert record["resumes"][0]["dropped_lines"] == 0
            lines = (out / "metrics.jsonl").read_text()
            assert [json.loads(line)["epoch"] for line in lines.splitlines()] == [1, 2, 3]
            assert lines == (tmp_path / f"{name}-whole" / "metrics.jsonl").read_text()


class Unscored(Classify):
    """Gives no score, so that nothing is saved at the end of an epoch unless it has to be."""

    def fit(self, task, context):
        class Plain:
            def __getattr__(self, name):
                return getattr(context, name)

            def checkpoint(self, score=None):
                context.checkpoint()

        return super().fit(task, Plain())


def test_disabling_what_is_not_there(tmp_path):
    """A typo is refused, since it would leave the plugin enabled; a plugin of another machine is no typo."""
    fake_distribution(tmp_path, "spikecore-w", {"spikecore.plugins": {"weights": "w_hooks"}})
    with use(Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)):
        says = r"plugins\.disable: 'weigths' is not installed; did you mean 'weights'\? \(plugins: core, .*weights"
        with pytest.raises(ConfigError, match=says):
            resolve({"plugins": {"disable": ["weigths"]}})
        for name in ("weights", "spikecore-w", "lava"):
            resolve({"plugins": {"disable": [name]}})


def test_core_cannot_be_disabled():
    with pytest.raises(ConfigError, match=r"plugins\.disable: .*core.*cannot be blocked"):
        resolve({"plugins": {"disable": ["core"]}})


def test_a_blocked_component_asked_for_by_a_config_is_one_of_its_problems(tmp_path, monkeypatch):
    fake_distribution(tmp_path, "spikecore-q", {"spikecore.neurons": {"q": "q:Q"}})
    monkeypatch.syspath_prepend(tmp_path)
    wrong = {"neuron": {"name": "q"}, "plugins": {"disable": ["spikecore-q"]}, "run": {"seed": -1}}
    with use(Registry(blocking=Blocking())), pytest.raises(ConfigError) as caught:
        resolve(wrong)
    assert any("neuron.name" in line and "blocked" in line for line in caught.value.problems)
    assert any("run.seed" in line for line in caught.value.problems)


def test_a_file_on_the_command_line_adds_a_neuron_and_the_record_holds_its_hash(tmp_path, spike):
    file = tmp_path / "mine.py"
    file.write_text(NEURON)
    options = ["--set", "neuron.name=my-lif", "--set", "trainer.epochs=1", "--set", "model.name=mlp"]
    done = spike("run", "--load", str(file), *options, "--out", "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (loaded,) = [plugin for plugin in record["plugins"] if plugin["source"] == "file"]
    assert loaded["distribution"] == str(file)
    assert loaded["version"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["components"]["neuron"]["plugin"] == "mine"
    assert spike("eval", "out", "--load", str(file)).returncode == 0
    without = spike("eval", "out")
    assert without.returncode == 2
    assert f"made with --load {file}" in without.stderr


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "registers nothing"),
        ("import sys; sys.exit(0)", "SystemExit"),
        (NEURON.replace("my-lif", "lif"), "already offered"),
        (NEURON.replace('"neuron"', '"neurone"'), "did you mean 'neuron'"),
        (NEURON.replace("LIF", "no_such"), "cannot import name 'no_such'"),
        ("def :", "SyntaxError"),
    ],
)
def test_a_bad_file_says_what_is_wrong(source, says, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(PluginError, match=says) as caught:
        Registry(blocking=Blocking()).load_file(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PluginError, match="cannot be read"):
        Registry(blocking=Blocking()).load_file(tmp_path / "mine.py")
    with pytest.raises(PluginError, match=r"ends in \.py"):
        Registry(blocking=Blocking()).load_file(tmp_path / "mine.txt")


def test_a_file_may_replace_what_another_file_registered(tmp_path):
    registry = Registry(blocking=Blocking())
    for name, source in (("first", NEURON), ("second", NEURON.replace('"my-lif"', '"my-lif", replace=True'))):
        file = tmp_path / f"{name}.py"
        file.write_text(source)
        registry.load_file(file)
        assert registry.find("neuron", "my-lif").plugin.path == str(file)


def test_a_trainer_that_asks_for_the_end_of_the_process_is_named(tmp_path, spike):
    (tmp_path / "mine.py").write_text(
        "import spikecore\nfrom spikecore.trainers.classify import Classify\n"
        "@spikecore.register('trainer', 'leaving')\nclass Leaving(Classify):\n"
        "    def fit(self, task, context):\n        raise SystemExit(0)\n"
    )
    left = spike("run", "--load", "mine.py", "--set", "trainer.name=leaving", "--out", "r")
    assert left.returncode == 2
    assert "mine.py:6 asked the process to end (SystemExit: 0)" in left.stderr
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "failed"
