"""The report and the comparison of runs: what they say, that it is true, and that they survive what a crash leaves."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

import spikecore
from spikecore import create
from spikecore.analysis import figures
from spikecore.cli import spike as spike_command
from spikecore.errors import ConfigError
from spikecore.interfaces.dataset import Batch
from spikecore.interfaces.task import Task
from spikecore.nn import LIF, get_state
from spikecore.run import compare, probe
from spikecore.run import record as records
from spikecore.run.config import resolve
from spikecore.run.experiment import Context, load, prepare
from spikecore.run.files import DirectoryLock
from spikecore.run.gallery import Gallery, read_gallery
from spikecore.run.log import read_lines
from spikecore.run.record import Record
from spikecore.run.report import build, write_report
from spikecore.run.samples import from_split
from spikecore.trainers import confusion

SMALL = {
    "run": {"name": "a <b>&\"'"},
    "dataset": {"test_share": 0.3},
    "encoder": {"num_steps": 3},
    "model": {"name": "mlp", "hidden": [12]},
    "trainer": {"epochs": 3, "batch_size": 256},
}
FIGURES = [
    "loss",
    "accuracy",
    "shown-0-confusion",
    "shown-1-recall",
    "rates",
    "shares",
    "raster-before-layers.1",
    "raster-after-layers.1",
    "membrane-before-layers.1",
    "membrane-after-layers.1",
    "time",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "finished"
    spikecore.run(resolve(SMALL), out=out)
    torch.set_num_threads(before)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    subprocess.run(["cp", "-r", finished, tmp_path / "r"], check=True)
    return tmp_path / "r"


def changed(directory, **values):
    path = directory / records.FILE
    path.write_text(records.sealed({**json.loads(path.read_text()), **values}))


def show(directory, **values):
    """What the run of this directory shows besides."""
    gallery = Gallery()
    gallery.values = read_gallery(directory)[0]
    gallery.directory = directory
    for name, value in values.items():
        gallery.show(name, value)


def ids(html):
    return re.findall(r'<figure id="([^"]*)"', html)


def test_a_run_writes_it_with_every_figure(finished):
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert ids(html) == FIGURES
    assert len(html) < 3_000_000
    assert html.count("<svg") == len(FIGURES)
    for part in ("components", "plugins", "backends", "environment", "checkpoints"):
        assert f'id="{part}"' in html
    for text in ("spikecore.nn.neurons:LIF", "spikecore.plugin", torch.__version__, "layers.1", "seed 0"):
        assert text in html


def test_it_asks_for_nothing(finished):
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|iframe|object|embed|audio|video|base|form)\b", html)
    assert not re.search(r"\b(src|srcset|action|xlink:href)=", html)
    assert re.findall(r'href="([^"]*)"', html) == ["data:,"]
    assert not re.search(r"url\(|@import|https?://(?!doi)", html)


def test_every_string_of_the_user_is_escaped(copied):
    evil = '<img src=x onerror="alert(1)">'
    files = [{"path": evil, "sha256": evil, "components": []}]
    changed(copied, classes=[evil] * 10, notes=[evil], files=files, changes=[f"a.b={evil}"])
    record = json.loads((copied / "run.json").read_text())
    record["environment"]["argv"] = [evil]
    record["backends"] = {evil: {"asked": evil, "ran": evil, "reason": evil}}
    record["plugins"][0]["reason"] = evil
    changed(copied, **record)
    line = {"epoch": 1, f"loss {evil}": 1.0, evil: 2.0}
    (copied / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    tree = probe.read(probe.path_of(copied, "after"))
    tree["layers"][0] |= {"name": evil, "type": evil}
    probe.save(probe.path_of(copied, "after"), tree)
    html = build(copied)
    assert "<img" not in html
    assert "a &lt;b&gt;&amp;&quot;&#x27;" in html
    compare.write(compare.read([copied]), copied / "c.html")
    assert "<img" not in (copied / "c.html").read_text()


def test_the_confusion_matrix_is_that_of_the_net(finished):
    net = load(finished)
    test = create("dataset", "digits", test_share=0.3).split("test")
    x = torch.stack([test[i][0] for i in range(len(test))])
    truth = np.array([test[i][1] for i in range(len(test))])
    guess = net(x.expand(3, *x.shape)).mean(0).argmax(-1).numpy()
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (truth, guess), 1)
    values, problems = read_gallery(finished)
    assert problems == []
    assert [list(row[1:]) for row in values["confusion"].rows] == counts.tolist()
    recall = values["recall"]
    assert recall.values == pytest.approx(np.diag(counts) / counts.sum(1))
    assert recall.names == tuple("0123456789")
    html = (finished / "report.html").read_text()
    cells = re.findall(r"<title>true (\d), predicted (\d): (\d+) ", html)
    assert len(cells) == 100
    assert all(counts[int(row), int(column)] == int(count) for row, column, count in cells)


class Three(torch.nn.Module):
    """Four neurons fed constants: never, at every third step, at every step; and one that only sample 0 moves."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x):
        current = torch.tensor([0.0, 0.5, 5.0, 0.0]) + torch.tensor([0.0, 0.0, 0.0, 9.0]) * x[..., :1]
        return self.neuron(current)


class Samples(list):
    pass


def looked_at(neuron, num_steps=6, count=4):
    samples = Samples((torch.full((1,), float(i == 0)), i % 2) for i in range(count))
    model = Three(neuron)
    task = Task(model, create("encoder", "direct", num_steps=num_steps), samples, samples, 2)
    context = Context(torch.device("cpu"), torch.float32, torch.Generator(), model)
    return probe.probe(task, context), model


def test_rates_silent_and_saturated_shares_are_counted():
    # IF with 0.5 a step: 0.5, 1.0 → fires at every second step
    notes, _ = looked_at(create("neuron", "if"))
    (layer,) = notes["layers"]
    assert layer["name"] == "neuron"
    assert layer["num_neurons"] == 4
    assert layer["rate"] == pytest.approx((0 + 1 / 2 + 1 + 1 / 4) / 4)
    assert layer["silent"] == 1 / 4
    assert layer["saturated"] == 1 / 4
    assert layer["spikes"].shape == (4, 6, 4)
    assert layer["spikes"][1].T.tolist() == [[0] * 6, [0, 1] * 3, [1] * 6, [0] * 6]
    assert layer["v"][1, :, 1].tolist() == [0.5, 0.0] * 3
    assert layer["v_threshold"] == 1.0
    assert notes["labels"] == [0, 1, 0, 1]


class Padded(Samples):
    """Sequences of three steps, padded to six."""

    def collate(self, own, generator):
        x = torch.stack([x for x, _ in own], 1)
        mask = torch.zeros(x.shape[:2], dtype=torch.bool)
        mask[:3] = True
        return Batch(x, torch.tensor([label for _, label in own]), mask)


def test_padding_is_not_counted():
    # As above, but over three steps, of which the second neuron fires in one.
    model = Three(create("neuron", "if"))
    samples = Padded((torch.full((6, 1), float(i == 0)), i % 2) for i in range(4))
    task = Task(model, None, samples, samples, 2, is_sequence=True)
    (layer,) = probe.probe(task, Context(torch.device("cpu"), torch.float32, torch.Generator(), model))["layers"]
    assert layer["rate"] == pytest.approx((0 + 1 / 3 + 1 + 1 / 4) / 4)
    assert from_split(task, 4, "train").source == (
        "4 samples of the train split, padded to 6 steps (the padding is counted, too)"
    )


def test_a_single_step_neuron_shows_as_one_step():
    notes, model = looked_at(create("neuron", "lif", step_mode="single"), num_steps=4)
    # the batch is what a single-step net takes: here the whole sequence counts as a batch of one step
    assert notes["layers"][0]["spikes"].shape[1] == 1
    assert get_state(model) == {"neuron": None}


def test_looking_changes_nothing():
    neuron = LIF(record=("v",))
    neuron.train()
    torch.manual_seed(5), np.random.seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    _, model = looked_at(neuron)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert model.training
    assert neuron.training
    assert neuron.record == ("v",)
    assert not neuron._forward_hooks


def test_a_run_that_is_looked_at_trains_to_the_same_bits(finished):
    torch.set_num_threads(1)
    prepared = prepare(resolve(SMALL))
    prepared.trainer.fit(prepared.task, prepared.context)
    saved = load(finished).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in prepared.task.model.state_dict().items())


def test_a_run_that_died_has_a_report_that_says_so(copied):
    changed(copied, status="running", exit_status=None)
    probe.path_of(copied, "after").unlink()
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_lo')  # cut short
    html = write_report(copied).read_text()
    assert "This run died" in html
    assert f"spike run --resume {copied}" in html
    assert "There is no probe-after.safetensors" in html
    assert ids(html) == [name for name in FIGURES if "-after-" not in name], "what was shown so far stays"
    assert len(read_lines(copied)) == 3
    with DirectoryLock(copied):
        assert "still going on" in build(copied)


@pytest.mark.parametrize(
    ("status", "says"), [("failed", "This run failed: ZeroDivisionError"), ("interrupted", "This run was interrupted")]
)
def test_other_ends(status, says, copied):
    changed(copied, status=status, error="ZeroDivisionError: x")
    assert says in build(copied)


def test_a_run_that_died_at_once_has_a_report_too(copied):
    subprocess.run(["rm", "-r", copied / "checkpoints", copied / "shown"], check=True)
    for path in copied.iterdir():
        if path.name not in ("run.json", "run.lock"):
            path.unlink()
    record = json.loads((copied / "run.json").read_text())
    changed(copied, status="running", timings_s={}, backends={}, metrics=None)
    html = build(copied)
    for text in ("No epoch was completed", "the run did not come so far", "without its times", "No neuron ran"):
        assert text in html
    assert "Checkpoints: none" in html
    assert record["id"]


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"\xff" * 50])
def test_a_damaged_probe_costs_its_figures_only(damage, copied):
    path = probe.path_of(copied, "after")
    path.write_bytes(damage(path.read_bytes()))
    html = build(copied)
    assert "probe-after.safetensors is damaged" in html
    assert "raster-before-layers.1" in html


def test_a_metric_that_is_not_finite_leaves_a_gap(copied):
    lines = [{"epoch": e, "train_loss": loss} for e, loss in enumerate((2.0, 1.0, None, 3.0, 2.5), 1)]
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = build(copied)
    path = re.search(r'<figure id="loss".*?<path class="line"[^>]* d="([^"]*)"', html, re.DOTALL)[1]
    assert re.sub(r"[\d. ]", "", path) == "MLML"
    (copied / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": null}\n')
    assert "no finite values" in build(copied)


def test_the_log_writes_json_that_every_reader_takes(tmp_path):
    from spikecore.run.log import MetricsLog

    log = MetricsLog(tmp_path)
    log.append({"a": float("nan"), "b": float("-inf"), "c": 1.5, "d": "x", "e": 2})
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": None,
        "c": 1.5,
        "d": "x",
        "e": 2,
    }


def test_points_stand_where_their_values_say():
    one = figures.Series("a", [(0, 0.0), (5, 1.0), (10, 0.5)])
    path = re.search(r'class="line"[^>]* d="([^"]*)"', figures.curves([one], "x", height=240))[1]
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert (x0, x2) == (52, figures.WIDTH - 12)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.11)
    assert (y0, y1) == (204, 10)


@given(st.floats(-1e9, 1e9) | st.floats(-1e-15, 1e-15), st.floats(-1e9, 1e9), st.integers(2, 9))
@example(0.0, 5e-324, 5)
@example(0.0, 1e-15, 5)
def test_ticks_cover_the_values(a, b, wanted):
    low, high = sorted((a, b))
    values, first, last = figures.ticks(low, high, wanted)
    room = 1e-6 * (high - low) + 1e-9
    assert first <= low + room
    assert last >= high - room
    assert 2 <= len(values) <= wanted + 3
    assert values == sorted(values)


@given(st.lists(st.none() | st.floats(-10, 10), min_size=500, max_size=2000))
@settings(max_examples=20, deadline=None)
def test_a_long_curve_keeps_its_peaks(values):
    points = list(enumerate(values))
    kept = figures.thin_out(points)
    assert len(kept) <= figures.MAX_POINTS + 2
    assert set(kept) <= set(points)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    known = [value for value in values if value is not None]
    if known:
        left = [value for _, value in kept if value is not None]
        assert (min(left), max(left)) == (min(known), max(known))


def test_many_classes_become_a_table_of_confusions(copied):
    counts = torch.eye(200, dtype=torch.int64) * 9
    counts[3, 7] = 5
    show(copied, **confusion(counts))
    html = build(copied)
    assert "The most frequent, of 200 classes" in html
    assert '<td>3</td><td>7</td><td class="number">5</td>' in html


def test_the_largest_report_stays_small(copied):
    """Long sequences, every neuron firing at every step, many layers, epochs and metrics."""
    spikes = torch.ones(1, 2000, 256, dtype=torch.uint8)
    base = {"type": "LIF", "num_neurons": 256, "rate": 1.0, "silent": 0.0, "saturated": 1.0, "v_threshold": 1.0}
    traced = {**base, "index": torch.arange(256), "spikes": spikes, "v": torch.randn(1, 2000, 256)}
    layers = [{**(traced if i < 4 else base), "name": f"blocks.{i}.a_rather_long_name.neuron"} for i in range(300)]
    for moment in ("before", "after"):
        tree = probe.read(probe.path_of(copied, moment))
        probe.save(probe.path_of(copied, moment), {**tree, "layers": layers, "labels": [3]})
    show(copied, **confusion(torch.full((40, 40), 12345)))
    values = torch.rand(3000, 60).tolist()
    lines = [{"epoch": e, **{f"m{i}": v for i, v in enumerate(row)}} for e, row in enumerate(values)]
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = build(copied)
    assert len(html.encode()) < 3_000_000
    assert "a mark per 9 steps" in html
    assert "The first 60 of 300 layers" in html
    assert "Not drawn: m40, m41" in html


def test_report_on_the_command_line(copied, tmp_path):
    (copied / "report.html").unlink()
    done = CliRunner().invoke(spike_command, ["report", str(copied)])
    assert done.exit_code == 0
    assert (copied / "report.html").is_file()
    done = CliRunner().invoke(spike_command, ["report", str(copied), "--out", str(tmp_path / "x.html")])
    assert (tmp_path / "x.html").read_bytes() == (copied / "report.html").read_bytes()
    for wrong in ([str(tmp_path)], [str(copied), "--out", str(tmp_path / "no" / "x.html")]):
        done = CliRunner().invoke(spike_command, ["report", *wrong])
        assert isinstance(done.exception, ConfigError)
    (copied / "run.json").write_text("{")
    assert "is damaged" in str(CliRunner().invoke(spike_command, ["report", str(copied)]).exception)


def test_compare(finished, copied, tmp_path):
    config = Record.read(copied).config
    config["trainer"]["epochs"] = 9
    # As a resumption writes both: the configuration has the change already, in its own spelling.
    changes = {"changes": ["trainer.epochs=9", "run.checkpoint_every_s=6e2"], "config": config}
    changed(copied, **changes, status="failed", metrics={"test_accuracy": 0.5, "other": 1})
    out = tmp_path / "c.html"
    done = CliRunner().invoke(spike_command, ["compare", str(finished), str(copied), "--out", str(out)])
    assert done.exit_code == 0, done.output
    head, one, two, _ = done.output.splitlines()
    metrics = ["val_accuracy", "val_loss", "test_accuracy", "test_loss", "other"]
    assert head.split() == ["run", "status", *metrics, "time", "train/val/test", "trainer.epochs"]
    assert one.split()[:2] == ["finished", "finished"]
    samples = Record.read(finished).samples
    assert one.split()[-2:] == ["/".join(str(samples[split]) for split in ("train", "val", "test")), "3"]
    assert two.split()[:5] == ["r", "failed", "–", "–", "50.00%"]
    assert two.split()[-1] == "9"
    html = out.read_text()
    assert ids(html) == ["compare-train_loss", "compare-val_accuracy", "compare-val_loss"]
    assert html.count('class="line"') == 2 * 3
    assert "default-src 'none'" in html
    assert unescape(html).count(copied.name) >= 1


def test_compare_writes_a_page_only_where_it_is_told_to(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(spike_command, ["compare", str(finished)])
    assert done.output.splitlines()[-1] == "curves  none written; --out FILE.html writes a page with them"
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_runs_fits_the_terminal(finished, copied):
    """A run a line, else a run a column, else one below the other; inner options by their own names."""
    record = json.loads((copied / "run.json").read_text())
    record["config"]["neuron"]["surrogate"] = {"name": "atan", "alpha": 3.5, "spiking": True}
    changed(copied, config=record["config"])
    head, lines = compare.rows(compare.read([finished, copied]))
    assert head[-1] == "neuron.surrogate.alpha"
    assert [line[-1] for line in lines] == ["2.0", "3.5"]
    wide = compare.table_text(head, lines, None).splitlines()
    assert wide[0].split() == head
    width = max(map(len, wide))
    assert compare.table_text(head, lines, width + 1).splitlines() == wide
    down = compare.table_text(head, lines, width).splitlines()
    assert [line.split()[0] for line in down] == head
    assert down[-1].split() == ["neuron.surrogate.alpha", "2.0", "3.5"]
    narrow = max(map(len, down))
    below = compare.table_text(head, lines, narrow)
    assert below.count("neuron.surrogate.alpha") == 2
    assert all(len(line) < narrow for line in below.splitlines())


def test_what_cannot_be_compared(finished, tmp_path):
    for paths, says in (
        ([finished, finished], "given twice"),
        ([finished, tmp_path], "holds no run.json"),
    ):
        with pytest.raises(ConfigError, match=re.escape(says)):
            compare.read(paths)
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        compare.write(compare.read([finished]), Path(tmp_path / "x.png"))


def test_a_report_that_cannot_be_made_does_not_fail_the_run(tmp_path, monkeypatch, capsys):
    def fail(directory):
        raise OSError("no")

    monkeypatch.setattr("spikecore.run.report.write_report", fail)
    spikecore.run(resolve({**SMALL, "trainer": {"epochs": 0}}), out=tmp_path / "r")
    assert "warning: no report was written: OSError: no; the run itself is complete" in capsys.readouterr().err
    assert json.loads((tmp_path / "r/run.json").read_text())["status"] == "finished"


def test_a_net_that_cannot_be_looked_at_trains_all_the_same(tmp_path, monkeypatch):
    def fail(task, context, example):
        raise ValueError("<odd>")

    monkeypatch.setattr("spikecore.run.probe.probe", fail)
    spikecore.run(resolve({**SMALL, "trainer": {"epochs": 1}}), out=tmp_path / "r")
    html = (tmp_path / "r/report.html").read_text()
    assert "spikes before training cannot be shown: ValueError: &lt;odd&gt;" in html
    assert "shown-0-confusion" in ids(html)
