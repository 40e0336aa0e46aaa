"""Which way `norm="auto"` takes for batch norm and neuron in training: by size, and by measuring once."""

import json
from threading import Barrier, Thread

import pytest
import torch
from spikecore_cpu_backend import norm_choice
from spikecore_cpu_backend.measured import Measured, best_times
from test_norm import NEURONS, block_of, values

from spikecore.backends.kit import is_channels_last
from spikecore.backends.selection import backend_named
from spikecore.nn import LIF, configure_backend
from spikecore.testing.compare import assert_close

SHAPE = (5, 6, 8, 9, 7)


@pytest.fixture
def backend(tmp_path, monkeypatch, compiled_once):
    """One whose figures are its own, and which measures small shapes."""
    monkeypatch.setattr(norm_choice, "FEWEST", 1000)
    monkeypatch.setattr(norm_choice, "MOST", 100_000)

    def fresh(**options):
        configure_backend("cpu", cache_dir=str(tmp_path), **options)
        return backend_named("cpu")

    yield fresh
    monkeypatch.undo()
    configure_backend("cpu")


@pytest.fixture
def times(monkeypatch):
    """What measuring gives: seconds together and apart, and how often it was asked for."""
    planted = {"times": [1.0, 2.0], "asked": 0}

    def measure(calls, rounds, threads):
        assert len(best_times(calls, 1, threads)) == 2
        planted["asked"] += 1
        return planted["times"]

    monkeypatch.setattr(norm_choice, "best_times", measure)
    return planted


def calls_of(monkeypatch, made):
    """The shapes that blocks give to `norm_neuron` from now on."""
    shapes, original = [], made.norm_neuron

    def noted(call, *rest):
        shapes.append(tuple(call.y.shape))
        return original(call, *rest)

    monkeypatch.setattr(made, "norm_neuron", noted)
    return shapes


def step(shape=SHAPE, neuron="lif", dtype=torch.float32, is_last=False):
    y = values(shape, dtype)
    if is_last:
        y = y.movedim(2, -1).contiguous().movedim(-1, 2)
        assert is_channels_last(y, 1)
    block = block_of(shape, neuron, "cpu", dtype)
    out = block(y.requires_grad_())
    assert out.any()
    out.sum().backward()
    return block, y


def test_few_elements_run_one_by_one_and_many_together_without_measuring(backend, times, monkeypatch):
    taken = calls_of(monkeypatch, backend())
    step((4, 3, 8, 3, 3))
    assert not taken
    step((4, 10, 8, 20, 20))
    assert taken == [(4, 10, 8, 20, 20)]
    assert not times["asked"]


@pytest.mark.parametrize(
    ("measured", "is_together"), [([1.0, 2.0], True), ([2.0, 1.0], False), ([0.96, 1.0], False), ([0.94, 1.0], True)]
)
def test_in_between_the_faster_way_is_taken_and_remembered(
    backend, times, monkeypatch, tmp_path, measured, is_together
):
    times["times"] = measured
    made = backend()
    step()
    assert times["asked"] == 1
    for _ in range(2):
        taken = calls_of(monkeypatch, made)
        step()
        assert len(taken) == is_together
        made = backend()  # as in another process: the file alone knows
    assert times["asked"] == 1
    (file,) = (tmp_path / "norms").iterdir()
    kept = json.loads(file.read_text())
    assert kept["together"] == is_together
    assert "channels=8, log_steps=2" in kept["of"]


def test_another_format_dtype_neuron_or_number_of_threads_is_another_class(backend, times):
    backend()
    threads = torch.get_num_threads()
    step(), step()
    step(is_last=True), step(is_last=True)
    step(dtype=torch.float64)
    step(neuron="cuba")
    step((5, 6, 16, 9, 7))
    step((5, 12, 8, 9, 7))
    step((10, 6, 8, 9, 7))
    assert times["asked"] == 7
    try:
        torch.set_num_threads(threads + 1)
        step()
    finally:
        torch.set_num_threads(threads)
    assert times["asked"] == 8
    step((5, 7, 8, 9, 7))  # as many samples, up to a factor of two
    step((6, 7, 8, 9, 7)), step((7, 6, 8, 10, 6))  # steps and positions likewise: ragged sequences are one class
    assert times["asked"] == 8


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 3000, '{"together": 7}', '{"together": true}', "[1]", '{"crossover": 0.5}']
)
def test_a_damaged_answer_is_measured_again(backend, times, tmp_path, content):
    backend()
    step()
    (file,) = (tmp_path / "norms").iterdir()
    file.write_text(content)
    backend()
    step()
    assert times["asked"] == 2
    assert json.loads(file.read_text())["together"] == 1.0


def test_processes_that_measure_at_once_decide_alike(backend, times, monkeypatch, tmp_path):
    backend()
    step()
    (file,) = (tmp_path / "norms").iterdir()
    answer = file.read_text()
    file.unlink()

    def measure_meanwhile(calls, rounds, threads):
        file.write_text(answer)  # another process is done
        return [2.0, 1.0]

    monkeypatch.setattr(norm_choice, "best_times", measure_meanwhile)
    taken = calls_of(monkeypatch, backend())
    step()
    assert len(taken) == 2, "tried before it is timed, then taken as the other process found"
    assert file.read_text() == answer


def test_threads_that_measure_at_once_decide_alike(tmp_path):
    measured = Measured(tmp_path, "share", "")
    both, answers = Barrier(2), []

    def ask(value):
        answers.append(measured.of("class", lambda: (both.wait(), value)[1]))

    threads = [Thread(target=ask, args=(value,)) for value in (0.0, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = tmp_path.iterdir()
    assert answers == [json.loads(file.read_text())["share"]] * 2
    assert measured.of("class", pytest.fail) == answers[0]


@pytest.mark.parametrize("way", ["together", "apart"])
def test_a_pinned_way_is_taken_for_every_size(backend, times, monkeypatch, way):
    taken = calls_of(monkeypatch, backend(norm=way))
    shapes = [(4, 3, 8, 3, 3), SHAPE, (4, 10, 8, 20, 20)]
    for shape in shapes:
        step(shape)
    assert taken == (shapes if way == "together" else [])
    assert not times["asked"]


@pytest.mark.parametrize("neuron", sorted(NEURONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", ["planes", "rows", "linear", "one step"])
def test_both_ways_that_are_timed_do_the_same_work(backend, neuron, dtype, form):
    made = backend()
    shape = (5, 60, 8) if form == "linear" else SHAPE
    y = values(shape, dtype)
    if form == "rows":
        y = y.movedim(2, -1).contiguous().movedim(-1, 2)
    if form == "one step":
        y = y[:1]
    cell = NEURONS[neuron](backend="cpu", record=("v",))
    program = cell.program()
    assert made.supports(program, y.device, dtype)
    made.learn(program)
    together, apart = norm_choice._candidates(made, program, y)
    gradients = [together(), apart()]
    assert gradients[0].abs().sum() > 0
    # torch's norm of 16 bits rounds what goes to the neuron; one call does not, so spikes differ.
    if dtype != torch.bfloat16:
        assert_close(gradients[0].flatten(), gradients[1].flatten(), "the gradient of y")
    else:
        assert gradients[0].numel() == gradients[1].numel()


def test_measuring_leaves_nothing_behind(backend, times):
    backend()
    torch.manual_seed(3)
    block, y = step()
    state = torch.get_rng_state()
    assert times["asked"] == 1
    torch.manual_seed(3)
    again, y_again = step()
    assert times["asked"] == 1
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(block.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(y.grad, y_again.grad)
    assert block.norm.num_batches_tracked == 1


def test_shapes_that_one_call_does_not_take_run_one_by_one(backend, times, monkeypatch):
    from spikecore_cpu_backend import tuning

    monkeypatch.setattr(tuning, "second_level_cache", lambda: 64)
    taken = calls_of(monkeypatch, backend())
    step((30, 8, 3, 7, 7))
    assert len(taken) == 1, "asked once, to see that it declines"
    assert not times["asked"]
    step((30, 8, 3, 7, 7))
    assert len(taken) == 1


def test_without_gradients_and_in_half_precision_it_is_measured_too(backend, times):
    backend()
    block = block_of(SHAPE, "lif", "cpu", torch.float32)
    with torch.no_grad():
        assert block(values(SHAPE, torch.float32)).any()
    assert times["asked"] == 1
    block = block_of(SHAPE, "lif", "cpu", torch.bfloat16)
    block.norm.float()
    block.neuron = LIF(backend="cpu", v_threshold=0.4)
    assert block(values(SHAPE, torch.bfloat16)).any()
    assert times["asked"] == 2
