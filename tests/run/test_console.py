"""What a run prints: in a scripted terminal of 80 and 200 columns, without colours, and where there is no terminal."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

import spikecore
from spikecore.run import console as module
from spikecore.run.clock import Clock
from spikecore.run.config import resolve
from spikecore.run.console import Pace, Stopwatch, epoch_text
from spikecore.run.text import aligned_value_text, bytes_text, clock_text, count_text, rate_text, seconds_text
from spikecore.terminal import filled, folded, listed, wrapped
from tests.terminals import plain, session

METRICS = {"train_loss": 0.43121, "val_loss": 0.332, "val_accuracy": 0.9133}
PACE = Pace(5420.3, "samples", 80.2)
SMALL = [
    *("--set", "encoder.num_steps=2"),
    *("--set", "model.name=mlp"),
    *("--set", "model.hidden=[12]"),
    *("--set", "trainer.batch_size=256"),
]
BRISK = ["--set", "trainer.epochs=2", "--set", "neuron.v_threshold=0.2"]
"""Neurons that spike, so that nothing is warned of."""
NEURON = '''
import spikecore
from spikecore.nn import LIF
@spikecore.register("neuron", "mine")
class Mine(LIF):
    """Mine."""
'''
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;5;\d+|38;2;[\d;]+)m")


def test_an_epoch_is_one_line_where_it_fits():
    long = "epoch  3/20  train_loss 0.4312  val_loss 0.332  val_accuracy 91.33%  5420 samples/s  1 min 20 s left"
    short = "epoch  3/20  loss 0.4312 val 0.332  accuracy val 91.33%  5420/s  1:20 left"
    assert epoch_text(3, 20, METRICS, PACE, None) == long
    assert epoch_text(3, 20, METRICS, PACE, 200) == long
    assert epoch_text(3, 20, METRICS, PACE, 80) == short
    assert len(short) < 80
    assert epoch_text(3, 20, METRICS, PACE, len(long) + 1) == long
    assert epoch_text(3, 20, METRICS, PACE, len(long)) == short


def test_a_line_that_does_not_fit_is_broken_between_its_parts():
    metrics = {f"a_rather_long_metric_{index}": index / 7 for index in range(6)}
    text = epoch_text(3, None, metrics, Pace(12.34, "episodes"), 60)
    assert all(len(line) < 60 for line in text.splitlines())
    assert text.splitlines()[0] == "epoch 3  a_rather_long_metric_0 0"
    assert re.sub(r"\s+", " ", text).endswith("a_rather_long_metric_5 0.7143 12.3/s")
    assert epoch_text(3, None, metrics, Pace(12.34, "episodes")).endswith("  12.3 episodes/s")
    assert epoch_text(1, None, {}, Pace()) == "epoch 1"


def test_a_warning_is_broken_between_words():
    text = wrapped("warning: " + "word " * 40, 60)
    assert all(len(line) < 60 for line in text.splitlines())
    assert all(line.startswith("  word") for line in text.splitlines()[1:])
    assert wrapped("a " * 100, None) == "a " * 100


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (seconds_text(59.94), "59.9 s"),
        (seconds_text(59.96), "1 min 00 s"),
        (seconds_text(80), "1 min 20 s"),
        (seconds_text(3 * 3600 + 245), "3 h 04 min"),
        (clock_text(5), "0:05"),
        (clock_text(3600 * 26 + 61), "26:01:01"),
        (rate_text(5420.3), "5420"),
        (rate_text(0.1234), "0.123"),
        (count_text(1, "thread"), "1 thread"),
        (count_text(2, "thread"), "2 threads"),
        (count_text(0, "file"), "0 files"),
        (bytes_text(999), "999 B"),
        (bytes_text(1_234_567), "1.23 MB"),
        (bytes_text(999_499), "999 kB"),
        (bytes_text(999_500), "1 MB"),
        (bytes_text(3 * 10**15), "3e+03 TB"),
    ],
)
def test_numbers_as_people_read_them(text, says):
    assert text == says


def test_rate_and_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock()
    watch = Stopwatch(clock)
    now[0] = 7.0
    watch.begin()
    now[0] += 4.0
    with clock.timed("evaluate"):
        now[0] += 1.0
    pace = watch.lap(1, 4, 200, "samples")
    assert (pace.rate, pace.left_s) == (50.0, 15.0)  # 200 in 4 s of training; 3 epochs of 5 s are left
    with clock.timed("checkpoint"):
        now[0] += 2.0
    now[0] += 5.0
    pace = watch.lap(2, 4, None, "samples")
    assert (pace.rate, pace.left_s) == (None, 12.0)
    now[0] += 1.0
    assert watch.lap(4, 4, 10, "steps") == Pace(10.0, "steps", None)


def test_a_list_is_broken_between_its_parts():
    parts = ["import 5.6 s", "building 2.0 s", "probe 0.4 s"]
    assert (
        listed("time  ", parts, None)
        == listed("time  ", parts, 80)
        == "time  import 5.6 s, building 2.0 s, probe 0.4 s"
    )
    assert listed("time  ", parts, 36) == "time  import 5.6 s, building 2.0 s,\n      probe 0.4 s"


def test_a_resumed_epoch_counts_what_was_spent_on_it_before(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    before = Stopwatch(Clock())
    before.begin()
    now[0] += 6.0
    before.lap(1, 5, 100, "samples")
    now[0] += 3.0
    state = before.state()
    assert state == [3.0, 6.0]
    now[0] += 50.0
    watch = Stopwatch(Clock())
    watch.restore(state)
    watch.begin()
    now[0] += 1.0
    # The rate is that of the rest; the epoch took 3 s and 1 s, the one before it 6 s; three are left.
    assert watch.lap(2, 5, 100, "samples") == Pace(100.0, "samples", 15.0)
    now[0] += 2.0
    assert watch.lap(3, 5, 100, "samples") == Pace(50.0, "samples", 8.0)
    fresh = Stopwatch(Clock())
    fresh.restore([])
    fresh.begin()
    now[0] += 1.0
    assert fresh.lap(1, 3, None, "samples").left_s == 2.0


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("no_color", [False, True])
def test_a_session_on_a_terminal(columns, no_color, tmp_path):
    environment = {"NO_COLOR": "1"} if no_color else {}
    arguments = ["run", *SMALL, "--set", "trainer.epochs=2", "--set", "neuron.v_threshold=40.0", "--out", "r"]
    status, out, written = session(columns, arguments, tmp_path, **environment)
    assert status == 0, written
    lines = plain(written)
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line[:9] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert ("train_loss" in epochs[0]) == (columns == 200)
    assert ("samples/s" in epochs[0]) == (columns == 200)
    assert all(len(line) < columns for line in epochs)
    assert " left" in epochs[0]
    assert " left" not in epochs[1]
    text = " ".join(" ".join(line.split()) for line in lines)
    assert text.count("layer 'layers.1' (LIF, 12 neurons) is silent after epoch 1: no spike in 16 samples") == 1
    assert "Usual cures: larger weights before it or a larger input gain, a lower v_threshold, a smaller tau" in text
    warning = [line for line in lines if line.startswith("warning: ")]
    assert len(warning) == 1
    assert all(len(line) <= columns for line in lines)
    bars = [line for line in lines if "training" in line and "━" in line]
    assert bars, "the progress bar"
    assert max(map(len, bars)) > columns - 5, "the bar uses the width"
    assert bool(COLOUR.search(written)) != no_color
    report = out.partition("time ")[2].partition("run directory")[0]
    assert report.count("\n") == 1, "stdout is a pipe here, whose lines are whole"
    seconds = {part.split()[0]: float(part.split()[1]) for part in " ".join(report.split()).split(", ")}
    assert {"import", "loop", "building", "checkpoint", "report", "evaluate", "probe", "other", "total"} <= set(seconds)
    total = seconds.pop("total")
    assert sum(seconds.values()) == pytest.approx(total, abs=0.05 * (len(seconds) + 1))


def test_ctrl_c_tells_how_to_go_on(tmp_path):
    (tmp_path / "my file.py").write_text(NEURON)
    arguments = ["run", *SMALL, "--set", "trainer.epochs=100000", "--out", "a run", "--load", "my file.py"]
    status, out, written = session(80, arguments, tmp_path, interrupt_after="epoch      2/")
    assert (status, out) == (130, "")
    lines = plain(written)
    assert "stopping at the next safe point, with a checkpoint; Ctrl-C again stops at once" in lines
    assert "run directory  a run" in lines
    command = next(line for line in lines if line.startswith("go on with"))
    words = shlex.split(command.removeprefix("go on with"))
    assert words[:6] == ["spike", "run", "--resume", "a run", "--load", str(tmp_path / "my file.py")]
    newest = sorted(path.name for path in (tmp_path / "a run/checkpoints").iterdir())[-1]
    assert f"interrupted: the last checkpoint is {newest}" in lines
    _, out, _ = session(80, [*words[1:], "--dry-run"], tmp_path)
    assert out == f"sound: would go on from {newest}\n"


class Interrupting(io.StringIO):
    """A stderr on which Ctrl-C is pressed while a line is written to it."""

    def __init__(self, line, is_terminal):
        super().__init__()
        self._line, self._is_terminal = line, is_terminal
        self._lock = threading.Lock()

    def isatty(self):
        return self._is_terminal

    def write(self, text):
        if "stopping" in text:
            time.sleep(0.5)  # what the run says next must wait for it
        if not self._lock.acquire(timeout=30):
            raise RuntimeError("the handler waits for what it interrupts")
        try:
            if self._line and self._line in text:
                self._line = None
                time.sleep(0.5)  # the bar's own thread comes to wait for this write
                signal.raise_signal(signal.SIGINT)
            return super().write(text)
        finally:
            self._lock.release()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_ctrl_c_while_a_line_is_written(is_terminal, tmp_path, monkeypatch):
    stderr = Interrupting("epoch 1/3", is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(resolve(None, [*SMALL[1::2], "trainer.epochs=3", BRISK[3]]), out=tmp_path / "r")
    finally:
        signal.signal(signal.SIGINT, before)
    lines = plain(stderr.getvalue())
    order = ["epoch 1/3", "stopping at the next safe point, with a checkpoint", "interrupted: the last checkpoint is"]
    places = [index for start in order for index, line in enumerate(lines) if line.startswith(start)]
    assert places == sorted(places)
    assert len(places) == len(order)


def test_where_there_is_no_terminal_the_lines_are_whole(tmp_path):
    command = [sys.executable, "-m", "spikecore", "run", *SMALL, *BRISK, "--out", "r"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "60"}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True)
    first, one, two = done.stderr.splitlines()
    assert "1 thread" in first
    assert "1 threads" not in first
    number = r"\d+(\.\d+)?(e[+-]\d+)?"
    metrics = rf"train_loss {number}  val_accuracy {number}%  val_loss {number}"
    assert re.fullmatch(rf"epoch 1/2  {metrics}  {number} samples/s  .* left", one)
    assert re.fullmatch(rf"epoch 2/2  {metrics}  {number} samples/s", two)
    assert "\x1b" not in done.stderr + done.stdout
    again = subprocess.run([*command[:-1], "q", "--quiet"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert again.stderr.splitlines() == [first]
    assert again.returncode == 0


def test_nothing_is_printed_twice_above_a_bar(capsys):
    console = module.Console()
    assert list(console.progress(range(3), "x", 3)) == [0, 1, 2]
    console.epoch(1, 2, METRICS, PACE)
    assert capsys.readouterr().err.count("epoch 1/2") == 1
    quiet = module.Console(is_quiet=True)
    quiet.epoch(1, 2, METRICS, PACE)
    quiet.warn("w")
    assert capsys.readouterr().err == "warning: w\n"


def test_lines_are_broken_at_words_and_hang():
    text = "spike: no neuron 'lfi'. Known neurons: if, leaky, lif\n  at line 3"
    assert wrapped(text, None) == text
    assert wrapped(text, 41) == "spike: no neuron 'lfi'. Known neurons:\n  if, leaky, lif\n  at line 3"
    assert wrapped("a/path/that/is/longer/than/the/terminal/itself", 10) == (
        "a/path/that/is/longer/than/the/terminal/itself"
    )


def test_prose_is_filled_again_and_equations_keep_their_lines():
    text = "One sentence that is too wide\nfor the terminal.\n\nh = v + x\nv = (1 - s) h\n\nArgs:\n    a: b\n    c: d"
    assert filled(text, None) == filled(text, 80) == text
    assert filled(text, 21).splitlines() == [
        *("One sentence that is", "too wide for the", "terminal.", ""),
        *("h = v + x", "v = (1 - s) h", ""),
        *("Args:", "    a: b", "    c: d"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("val_accuracy_without_ema", 0.3793, "37.93%"),
        ("test_mse", 0.0000312, "3.12e-05"),
        ("test_loss", 1.519, "1.5190"),
        ("test_silent", 0.0, "0.0000"),
        ("test_loss", float("nan"), "nan"),
    ],
)
def test_a_final_metric_shows_its_digits(name, value, text):
    assert aligned_value_text(name, value) == text


ROWS = [("layer", "kind", "spikes", "energy in nJ"), ("conv", "Conv2d", "", "12"), ("lif", "LIF", "1,024", "")]


def test_columns_that_do_not_fit_stand_below_one_another():
    whole = "layer  kind    spikes  energy in nJ\nconv   Conv2d                    12\nlif    LIF      1,024"
    assert folded(ROWS, 2, None) == folded(ROWS, 2, 36) == whole
    left = "layer  kind    spikes\nconv   Conv2d\nlif    LIF      1,024"
    right = "layer  energy in nJ\nconv             12\nlif"
    in_two = f"{left}\n\n{right}"
    assert folded(ROWS, 2, 35) == in_two, "the last column of a terminal stays free"
    assert folded(ROWS, 2, 22) == in_two, "as wide as two blocks must be"
    assert folded(ROWS, 2, 21).count("\n\n") == 2


def test_a_long_name_has_a_line_of_its_own():
    rows = [("layer", "spikes", "rate"), ("stages.0.blocks.1", "7", "0.5")]
    assert folded(rows, 1, 30) == "layer\n  spikes  rate\nstages.0.blocks.1\n       7   0.5"
    assert folded(rows, 1, 40) == "layer              spikes  rate\nstages.0.blocks.1       7   0.5"
