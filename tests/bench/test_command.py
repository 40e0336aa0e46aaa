"""`spike bench` from the command line: what it says, what it writes, and how it ends."""

import csv
import json
import sys
import types

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from spikecore.bench import peers as peers_module
from spikecore.bench import timing
from spikecore.bench.candidates import Unsupported
from spikecore.bench.cases import FORWARD, STEP, TRAINING, Case
from spikecore.bench.gate import peer_gate
from spikecore.bench.peers import LIBRARIES, peers
from spikecore.bench.rows import COLUMNS, Row
from spikecore.bench.session import Plan, Report, Session
from spikecore.bench.show import number, show
from spikecore.bench.timing import Effort, Sample
from spikecore.cli import spike
from spikecore.errors import BackendError, ConfigError, PluginUnavailable, UnknownComponentError
from spikecore.registry import register, use
from tests.bench import toys

COMMON = ["date", "device_name", "threads", "load_average", "python", "torch", "numpy", "spikecore", "git_commit"]
SHAPES = ((5, 2, 8), (3, 1, 16))


@pytest.fixture
def registry():
    registry = toys.core_alone()
    with use(registry):
        register("backend", "right", toys.Right)
        yield registry


def bench(*args):
    return CliRunner().invoke(spike, ["bench", *args])


def plan(**options):
    return Plan(shapes=SHAPES, effort=Effort(0, least=2, most=2), with_fresh=False, **options)


def clock(run, repeats):
    """Every call takes as long as the one before it, and a bit."""
    for _ in range(repeats):
        run()
    clock.calls += 1
    return Sample(0.001 * clock.calls, 0.002)


clock.calls = 0


def by_place(report):
    return {(row.subject, row.shape, row.measure, row.candidate): row for row in report.rows}


def test_the_csv_has_a_row_per_measurement_and_says_where_and_with_what(registry, tmp_path):
    path = tmp_path / "new" / "bench.csv"
    done = bench("--quick", "--shape", "5,2,8", "--shape", "3,1,16", "--csv", str(path))
    assert done.exit_code == 0, done.output
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*COLUMNS, *COMMON, "git_state"]
    places = {(row["shape"], row["measure"], row["candidate"]) for row in rows}
    measured = {(shape, measure) for shape in ("5,2,8", "3,1,16") for measure in (FORWARD, TRAINING)}
    assert places == {(*place, name) for place in (*measured, ("1,1,256", STEP)) for name in ("torch", "right")}
    assert len(rows) == len(places)
    for row in rows:
        assert row["status"] == "ok"
        assert 0 < float(row["wall_ms_p10"]) <= float(row["wall_ms"]) <= float(row["wall_ms_p90"])
        assert float(row["cpu_ms"]) > 0
        assert int(row["rounds"]) == 3
        assert row["torch"] == torch.__version__ or row["torch"].startswith("2.")
        assert row["threads"] == str(torch.get_num_threads())
        if row["measure"] != STEP:
            assert float(row["times_floor"]) == pytest.approx(float(row["wall_ms"]) / float(row["floor_ms"]), rel=1e-3)
    compared = {row["compared"] for row in rows if row["candidate"] == "right" and row["measure"] == FORWARD}
    assert all(text.startswith("equal to eager over ") for text in compared)
    assert not list(path.parent.glob("*.partial"))


def test_json_holds_the_same_rows(registry):
    done = bench("--quick", "--shape", "2,1,4", "--backend", "right", "--json")
    report = json.loads(done.stdout)
    assert report["schema"] == 1
    assert {row["candidate"] for row in report["rows"]} == {"torch", "right"}
    assert set(report["rows"][0]) == {*COLUMNS, *COMMON, "git_state"}


@pytest.mark.parametrize("name", ["wrong_gradient", "raises"])
def test_a_wrong_backend_is_shown_as_failed_not_timed_and_ends_with_1(registry, name):
    register("backend", name, toys.WRONG[name][0])
    done = bench("--quick", "--shape", "3,2,8", "--json")
    assert done.exit_code == 1
    rows = json.loads(done.stdout)["rows"]
    wrong = [row for row in rows if row["candidate"] == name]
    assert len(wrong) == 3
    assert all(row["status"] == "failed" and row["wall_ms"] is None and row["reason"] for row in wrong)
    assert all(row["status"] == "ok" and row["wall_ms"] for row in rows if row["candidate"] == "right")


def test_the_terminal_says_what_failed(registry):
    register("backend", "wrong_spike", toys.WrongSpike)
    done = bench("--quick", "--shape", "3,2,8", "--backend", "wrong_spike")
    assert done.exit_code == 1
    assert "FAILED wrong_spike on lif 3,2,8, forward, not timed: at 7,3,37: " in done.output


@pytest.fixture
def no_warm_up(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP_S", 0.0)


def test_ratios_are_of_medians_relative_to_eager_and_to_the_floor(registry, no_warm_up):
    clock.calls = 0
    rows = by_place(Session(plan(), clock=clock).run())
    eager, right = (rows["lif", "5,2,8", FORWARD, name] for name in ("torch", "right"))
    # Warm-up: 3 calls of torch, right, copy_, right.stream_copy each; two rounds follow.
    assert eager.wall_ms == pytest.approx((13 + 17) / 2)
    assert right.wall_ms == pytest.approx((14 + 18) / 2)
    assert right.times_faster == pytest.approx(15 / 16)
    assert eager.times_faster == 1
    assert right.cpu_ms == pytest.approx(2)
    assert right.first_call_ms == pytest.approx(4)
    # The best copy of 320 bytes took 15 ms: forward moves 8 bytes per element, as a copy does.
    assert right.floor_ms == pytest.approx(15)
    assert right.times_floor == pytest.approx(16 / 15)
    assert right.copy_gb_s == pytest.approx(640 / 0.015 / 1e9)
    assert right.ps_per_byte == pytest.approx(16e9 / 640)
    training = rows["lif", "5,2,8", TRAINING, "right"]
    assert training.floor_ms == pytest.approx(15 * 2.5)


def test_many_neurons_take_turns_and_stand_beside_lif(registry, no_warm_up):
    register("neuron", "grower", toys.Grower)
    clock.calls = 0
    rows = by_place(Session(plan(neurons=("lif", "grower")), clock=clock).run())
    lif, grower = (rows[name, "5,2,8", FORWARD, "right"] for name in ("lif", "grower"))
    assert lif.per_byte_of_lif == 1
    assert grower.per_byte_of_lif == pytest.approx(grower.wall_ms / lif.wall_ms)
    assert grower.wall_ms - lif.wall_ms == pytest.approx(2)  # two calls later in every round


def test_all_neurons_are_those_that_are_elementwise(registry):
    register("neuron", "grower", toys.Grower)
    register("neuron", "needy", toys.Needy)
    session = Session(plan(neurons=("all",)))
    assert "needy" not in session.neurons
    assert "neuron needy is left out: " in session.report.notes[0]
    assert "num_steps" in session.report.notes[0]
    assert session.neurons[0] == "lif"
    assert {"if", "grower"} <= set(session.neurons)


def test_all_usable_backends_are_found_and_the_others_listed_with_their_reason(registry):
    register("backend", "absent", toys.Absent)
    register("backend", "picky", toys.Picky)
    done = bench("--quick", "--shape", "2,1,4")
    assert done.exit_code == 0
    assert "backend absent cannot be used here: " in done.output
    assert "no compiler found (apt install gcc)" in done.output
    assert "picky on lif 2,1,4: the moon is not full" in done.output


def test_the_reference_alone_is_a_benchmark_too():
    with use(toys.core_alone()):
        register("backend", "absent", toys.Absent)
        report = Session(plan()).run()
    assert {row.candidate for row in report.rows if row.status == "ok"} == {"torch"}
    assert not report.failed


def test_an_unknown_backend_names_the_nearest(registry):
    with pytest.raises(UnknownComponentError, match="Did you mean 'right'"):
        Session(plan(backends=("rihgt",)))


def test_an_unknown_backend_or_neuron_ends_with_2(spike):
    done = spike("bench", "--quick", "--backend", "trch", SPIKE_DISABLE_PLUGINS="all")
    assert done.returncode == 2
    assert "no backend 'trch'. Did you mean 'torch'?" in done.stderr
    done = spike("bench", "--quick", "--neuron", "lfi", SPIKE_DISABLE_PLUGINS="all")
    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert "'lif'?" in done.stderr


def test_a_backend_that_was_asked_for_runs_or_raises(registry):
    register("backend", "absent", toys.Absent)
    register("backend", "picky", toys.Picky)
    with pytest.raises(PluginUnavailable, match="no compiler found"):
        Session(plan(backends=("absent",)))
    with pytest.raises(BackendError, match="'picky' runs none of this: the moon is not full"):
        Session(plan(backends=("picky",))).run()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_a_device_that_is_not_there_is_named(registry):
    with pytest.raises(ConfigError, match="--device cuda: torch sees no accelerator here"):
        Session(plan(device=torch.device("cuda")))


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_time_must_end(seconds):
    done = bench("--quick", "--seconds", seconds)
    assert done.exit_code == 2
    assert "--seconds" in done.output


@pytest.mark.parametrize("shape", ["4,5", "4,5,0", "a,b,c", "4,-1,2"])
def test_a_shape_has_three_positive_sizes(shape):
    done = bench("--shape", shape)
    assert done.exit_code == 2
    assert "three positive sizes" in done.output


def test_an_unwritable_csv_is_refused_before_anything_is_measured(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "run", lambda self: pytest.fail("measured"))
    tmp_path.joinpath("file").touch()
    done = bench("--quick", "--csv", str(tmp_path / "file" / "bench.csv"))
    assert isinstance(done.exception, ConfigError)
    assert "cannot be written" in str(done.exception)


def test_an_absent_peer_is_named_with_the_reason(registry, monkeypatch):
    for module, _, _ in LIBRARIES.values():
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(peers_module, "_torch_compile", lambda steps: peers_module._lean)  # compiling takes seconds
    done = bench("--quick", "--shape", "2,1,4", "--peers")
    assert done.exit_code == 0
    for name in LIBRARIES:
        assert f"peer {name} cannot be used here: cannot be imported (ModuleNotFoundError" in done.output
    assert "lean loop" in done.output


def test_the_version_names_the_kernels_that_a_peer_chose_on_a_gpu(monkeypatch):
    """spikingjelly 2 chooses by itself; it has no `backend` that could be set."""
    asked = []

    def choice(neuron, device):
        asked.append((neuron, device))
        return {"implementation": "triton", "unavailable": {"cuda": "not built"}}

    theirs = types.SimpleNamespace(neuron_implementation=choice)
    monkeypatch.setattr(peers_module, "import_module", lambda name: theirs)
    monkeypatch.setattr(peers_module.importlib.metadata, "version", lambda name: "9.9")
    (on_cpu,), _ = peers(only="spikingjelly")
    assert (on_cpu.version, asked) == ("9.9", [])
    (on_gpu,), _ = peers(only="spikingjelly", device=torch.device("cuda:1"))
    assert (on_gpu.version, asked) == ("9.9 (triton)", [("lif", torch.device("cuda:1"))])
    with pytest.raises(Unsupported, match="measured with lif and plif only"):
        on_gpu.make(Case("izhikevich", (2, 1, 4)), TRAINING)


def test_the_hand_written_loop_computes_the_same(registry):
    loops, _ = peers(only="lean loop")
    verdict = peer_gate(loops[0], Session(plan()).reference, Case("lif", (12, 3, 200)))
    assert verdict.text == "spikes equal, gradients equal"


def test_the_terminal_needs_100_columns():
    names = ("torch.compile", "a-backend-name")
    measures = (FORWARD, TRAINING, STEP)
    rows = [
        Row(neuron, "1000,16,16384", measure, name, wall_ms_p10=11234.5, wall_ms=12345.6, wall_ms_p90=23456.7,
            cpu_ms=12345.6, times_faster=0.00123, times_floor=12345.6, peak_mib=12345.6, first_cold_ms=12345.6,
            first_warm_ms=0.0123, ps_per_byte=1.0, per_byte_of_lif=0.123)
        for neuron in ("lif", "izhikevich") for measure in measures for name in names
    ]  # fmt: skip
    common = {"device_name": "d", "threads": 2, "torch": "2.13.0", "spikecore": "0", "load_average": 0.1}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(Report(rows), common, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "11234-23457" in text
    assert "12346 / 0.0123" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (9.996, "10.0"),
        (99.96, "100"),
        (123456.7, "123457"),
        (1.0, "1.00"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_a_net_is_not_taken_for_a_neuron():
    rows = [
        Row("lif", "4,1,2", FORWARD, "torch", wall_ms=1.0, ps_per_byte=1.0),
        Row("linear net", "500,16,512", TRAINING, "torch", wall_ms=2.0),
    ]
    common = {"device_name": "d", "threads": 2, "torch": "2.13.0", "spikecore": "0", "load_average": 0.1}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(Report(rows), common, console)
    text = console.export_text()
    assert "linear net: forward+backward" in text
    assert "neurons" not in text
