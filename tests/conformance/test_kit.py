"""The machinery of the kit: ways in, gates, strict expected failures, the minimum, reports."""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from spikecore.cli import main
from spikecore.errors import OptionError, PluginUnavailable, UnknownComponentError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.kinds import KINDS
from spikecore.registry import Blocking, Registry, load, use
from spikecore.testing import proving, pytest_plugin
from spikecore.testing.proving import prove
from spikecore.testing.report import OUTCOMES, report
from spikecore.testing.suite import ENOUGH, Suite, needs, since, skip, suite_for
from spikecore.testing.suites.encoder import EncoderSuite
from spikecore.testing.suites.neuron import NeuronSuite
from spikecore.testing.suites.surrogate import SurrogateSuite
from tests.conformance.toys import SOUND, ToyNeuron, ToySurrogate

RUN = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


class TestInThisFile(SurrogateSuite):
    """The third way in: a subclass."""

    component = "sigmoid"
    options = {"alpha": 2.5}  # noqa: RUF012

    def test_of_my_own(self):
        assert self.make().config.alpha == 2.5


class Broken(ToySurrogate):
    @staticmethod
    def derivative(u, params):
        return 2 * ToySurrogate.derivative(u, params)


class Needy(ToyNeuron):
    @dataclass(frozen=True, kw_only=True)
    class Config(ToyNeuron.Config):
        num_groups: int

    @staticmethod
    def step(x, state, params):
        return ToyNeuron.step(x / params.num_groups, state, params)


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        for kind, sound in SOUND.items():
            own.register(kind, "toy", sound)
        own.register("surrogate", "broken", Broken)
        yield own


@pytest.fixture
def spike(monkeypatch, capfd, tmp_path):
    """`spike` in this process: `(exit status, what it printed)`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spike", *arguments])
        status = 0
        try:
            with use(Registry(blocking=Blocking())):
                main()
        except SystemExit as stop:
            status = stop.code
        return status, "".join(capfd.readouterr())

    return call


def session(tmp_path, source, *options):
    """A pytest session over one file; the toys are registered in it."""
    head = (
        "import sys; sys.path.insert(0, {root!r})\n"
        "from spikecore.registry import registry\n"
        "from tests.conformance.test_kit import Broken\n"
        "from tests.conformance.toys import SOUND\n"
        "registry().register('surrogate', 'broken', Broken)\n"
        "registry().register('surrogate', 'toy', SOUND['surrogate'])\n"
        "from spikecore.testing.suites.surrogate import SurrogateSuite\n"
    )
    root = str(Path(__file__).parents[2])
    tmp_path.joinpath("test_mine.py").write_text(head.format(root=root) + source)
    return subprocess.run([*RUN, *options, "test_mine.py"], cwd=tmp_path, capture_output=True, text=True)


def outcomes(report):
    return {check["name"]: check["outcome"] for check in report["checks"]}


def test_the_ways_in_run_the_same_checks(tmp_path, spike):
    wanted = outcomes(prove("surrogate", "atan"))
    assert len(wanted) == len(SurrogateSuite.checks())
    assert spike("test", "surrogate:atan", "--json", "spike.json")[0] == 0
    assert outcomes(json.loads(tmp_path.joinpath("spike.json").read_text())) == wanted
    source = "class TestMine(SurrogateSuite):\n    component = 'toy'\n"
    options = ["--pyargs", "spikecore.testing", "--spike-component", "surrogate:atan", "--spike-report", "out"]
    done = session(tmp_path, source, *options)
    assert done.returncode == 0, done.stdout
    for name in ("atan", "toy"):
        report = json.loads(tmp_path.joinpath(f"out/surrogate-{name}.json").read_text())
        assert outcomes(report) == wanted
        assert f"surrogate:{name} (" in done.stdout, "no summary line"


def test_the_report_is_complete():
    report = prove("neuron", "lif", {"tau": 3.0})
    assert set(report) == {
        *("schema", "kind", "name", "distribution", "version", "api_version", "options", "ok", "executed", "minimum"),
        *("counts", "checks"),
    }
    assert (report["schema"], report["kind"], report["name"], report["distribution"]) == (
        1,
        "neuron",
        "lif",
        "spikecore",
    )
    assert report["options"] == {"tau": "3.0"}
    assert report["api_version"] == load("neuron", "lif").api_version
    assert set(report["counts"]) == set(OUTCOMES)
    assert sum(report["counts"].values()) == len(report["checks"]) == len(NeuronSuite.checks())
    for check in report["checks"]:
        assert set(check) == {"name", "outcome", "reason", "seconds"}
        assert check["reason"] or check["outcome"] == "passed", (
            f"{check['name']} is {check['outcome']} without a reason"
        )
    json.dumps(report)


def test_a_failure_is_status_1_and_in_the_report(registry):
    report = prove("surrogate", "broken")
    assert not report["ok"]
    failed = [check for check in report["checks"] if check["outcome"] == "failed"]
    assert failed[0]["name"] == "test_primitive_has_this_derivative"
    assert "the slope is another" in failed[0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("surrogate:atan", "--set", "alpha=0.5"), 0, "surrogate:atan (spikecore"),
        (("surrogate:nothing",), 2, "no surrogate 'nothing'"),
        (("sorrugate:atan",), 2, "sorrugate"),
        (("surrogate:atan", "--set", "alpha"), 2, "expected KEY=VALUE"),
        (("surrogate:atan", "--set", "alpha=-1"), 2, "must be > 0"),
        (("surrogate:atan", "--json", "/no/such/folder/report.json"), 2, "cannot be written"),
        (("surrogate",), 2, "KIND:NAME"),
    ],
)
def test_exit_status_of_spike_test(arguments, status, says, spike):
    code, printed = spike("test", *arguments)
    assert says in printed
    assert code == status


MINE = """
import spikecore
from spikecore.dynamics import sigmoid
from spikecore.nn import Surrogate


@spikecore.register("surrogate", "mine")
class Mine(Surrogate):
    @staticmethod
    def derivative(u, params):
        s = sigmoid(params.alpha * u)
        return FACTOR * params.alpha * s * (1 - s)

    @staticmethod
    def primitive(u, params):
        return sigmoid(params.alpha * u)
"""


def test_spike_test_proves_what_a_file_registers(tmp_path, spike):
    for factor, status in (("1.0", 0), ("2.0", 1)):
        tmp_path.joinpath("mine.py").write_text(MINE.replace("FACTOR", factor))
        code, printed = spike("test", "surrogate:mine", "--load", "mine.py", "--json", "report.json")
        assert code == status, printed
        assert json.loads(tmp_path.joinpath("report.json").read_text())["ok"] == (status == 0)
    assert "the slope is another" in printed


def test_expected_failures_are_strict(tmp_path):
    text = "class Test{0}(SurrogateSuite):\n    component = {1!r}\n    expected_failures = {{{2!r}: 'off by two'}}\n"
    name = "test_primitive_has_this_derivative"
    source = text.format("Broken", "broken", name) + text.format("Toy", "toy", name)
    done = session(tmp_path, source, "--spike-report", "out")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "1 xfailed" in done.stdout
    assert "XPASS(strict)" in done.stdout
    broken, toy = (json.loads(tmp_path.joinpath(f"out/surrogate-{n}.json").read_text()) for n in ("broken", "toy"))
    assert (broken["ok"], outcomes(broken)[name], broken["counts"]["expected_failure"]) == (True, "expected_failure", 1)
    assert (toy["ok"], outcomes(toy)[name], toy["counts"]["unexpected_pass"]) == (False, "unexpected_pass", 1)


def test_checks_cannot_be_replaced_or_invented():
    with pytest.raises(TypeError, match=r"replaces the check test_is_pure.*expected_failures"):
        type("Cheat", (SurrogateSuite,), {"component": "atan", "test_is_pure": lambda self: None})
    with pytest.raises(TypeError, match="replaces the check test_is_pure"):
        type("Cheat", (SurrogateSuite,), {"component": "atan", "test_is_pure": None})
    with pytest.raises(TypeError, match="no check of it"):
        type("Typo", (SurrogateSuite,), {"component": "atan", "expected_failures": {"test_pure": "why"}})


def test_a_suite_that_skips_everything_fails(registry):
    class Reluctant(EncoderSuite):
        component = "toy"

    Reluctant.minimum = 100
    for name in Reluctant.checks():
        with contextlib.suppress(pytest.skip.Exception):
            getattr(Reluctant(), name)()
    with pytest.raises(AssertionError, match=r"checks were executed, at least 100 are needed; .*capabilities\.signed"):
        getattr(Reluctant(), ENOUGH)()
    assert not report(Reluctant)["ok"]


def test_a_selection_does_not_count_as_proof(registry):
    suite = suite_for("surrogate", "toy")
    getattr(suite(), "test_is_pure")()  # noqa: B009
    with pytest.raises(pytest.skip.Exception, match="checks were not selected"):
        getattr(suite(), ENOUGH)()
    result = report(suite)
    assert not result["ok"]
    assert result["executed"] == 1
    assert result["counts"]["not_run"] == len(suite.checks()) - 1


def test_gates_name_the_capability():
    class Gated(Suite):
        kind, component = "neuron", "lif"

        @needs("stochastic")
        def test_flag(self):
            raise AssertionError

        @needs("differentiable", False)
        def test_absent(self):
            raise AssertionError

        @needs("step_modes", "backwards")
        def test_list(self):
            raise AssertionError

        @since(2)
        def test_later(self):
            raise AssertionError

        def test_own(self):
            skip("the moon is full")

    for name, reason in {
        "flag": "capabilities.stochastic is False",
        "absent": "capabilities.differentiable is True",
        "list": "capabilities.step_modes lacks 'backwards'",
        "later": "api_version is 1; the check belongs to 2",
        "own": "the moon is full",
    }.items():
        with pytest.raises(pytest.skip.Exception) as skipped:
            getattr(Gated(), f"test_{name}")()
        assert str(skipped.value) == Gated.outcomes[f"test_{name}"].reason == reason


def test_what_is_unavailable_proves_nothing(registry):
    class Away(ToyNeuron):
        def __init__(self, **options):
            raise PluginUnavailable("needs a chip", "buy one")

    registry.register("neuron", "away", Away)
    with pytest.raises(PluginUnavailable, match=r"needs a chip \(buy one\); nothing was checked"):
        prove("neuron", "away")
    suite = suite_for("neuron", "away")
    for name in [*suite.checks(), ENOUGH]:
        with pytest.raises(pytest.skip.Exception, match=r"unavailable here: .*needs a chip"):
            getattr(suite(), name)()
    assert not report(suite)["ok"]


def test_required_options_are_asked_for(registry):
    registry.register("neuron", "needy", Needy)
    with pytest.raises(OptionError, match=r"spike test neuron:needy --set num_groups=…"):
        prove("neuron", "needy")
    assert prove("neuron", "needy", {"num_groups": 3})["ok"]


def test_an_unknown_component_is_told_at_once(registry):
    with pytest.raises(UnknownComponentError, match="no neuron 'toi'"):
        prove("neuron", "toi")


def test_missing_pytest_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(proving, "REQUIRED", ("pytest>=8", "certainly-missing"))
    with pytest.raises(PluginUnavailable, match=r"certainly-missing.*pip install 'spikecore\[testing\]'"):
        prove("neuron", "lif")


def test_a_check_leaves_the_surroundings_alone(registry):
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    suite = suite_for("backend", "toy")
    for name in ("test_poisoned_memory", "test_determinism", "test_requested_is_executed"):
        getattr(suite(), name)()
    after = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_mis_typed_capability_is_caught(registry):
    class Sloppy(ToyNeuron):
        capabilities = NeuronCapabilities(step_modes="multi")

    registry.register("neuron", "sloppy", Sloppy)
    with pytest.raises(AssertionError, match="step_modes should be"):
        suite_for("neuron", "sloppy")().test_capabilities()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_suite_with_a_real_minimum(kind, registry):
    suite = suite_for(kind, "toy")
    assert suite.kind == kind
    assert 10 <= suite.minimum <= len(suite.checks())
    for name, check in suite.checks().items():
        assert (check.__doc__ or "").strip(), f"{kind} {name} does not say what it checks"


def test_without_a_component_pytest_says_what_to_name(tmp_path):
    done = subprocess.run([*RUN, "--pyargs", "spikecore.testing"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "--spike-component KIND:NAME" in done.stdout


def test_a_component_without_a_kind_is_refused(monkeypatch):
    class Config:
        @staticmethod
        def getoption(name):
            return ["lif"]

    monkeypatch.setattr(pytest_plugin, "_chosen", [])
    with pytest.raises(pytest.UsageError, match="expected KIND:NAME"):
        pytest_plugin.pytest_configure(Config())
