"""Agreement of two spike records: counted by plain loops, told as text, JSON and HTML; and how a net's own is made."""

import json
import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikecore.analysis import (
    Decisions,
    Fidelity,
    compare_traces,
    fidelity_page,
    neuron_layers,
    record_spikes,
)
from spikecore.errors import InputError, OptionError, ShapeError
from spikecore.interfaces.deployer import OperatorRecord
from spikecore.nn import IF, LI, LIF, ConvBNNeuron, get_state, set_step_mode, streaming
from spikecore.nn.layers import ElementwiseRecurrent, fold_time

HOSTILE = "<script>alert('x')</script>&\"layer\""


def counted(name, ours, theirs, tolerance):
    """(number of differences, agreement per step, first difference), by loops over single outputs."""
    ours, theirs = ours.double(), theirs.double()
    binary = all(value in (0.0, 1.0) for value in [*ours.flatten().tolist(), *theirs.flatten().tolist()])
    first, count, per_step = None, 0, []
    for t in range(ours.shape[0]):
        wrong = 0
        for place in product(*map(range, ours.shape[1:])):
            a, b = float(ours[(t, *place)]), float(theirs[(t, *place)])
            same = a == b if binary else a == b or abs(a - b) <= tolerance
            if not same:
                wrong += 1
                first = first or (name, t, place[0], tuple(place[1:]), a, b)
        count += wrong
        per_step.append(1 - wrong / math.prod(ours.shape[1:]))
    return count, per_step, first


@st.composite
def records(draw):
    names = draw(st.lists(st.sampled_from(["a", "b.0", "b.1", "c"]), min_size=1, max_size=3, unique=True))
    num_steps, batch = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    values = st.sampled_from(draw(st.sampled_from([(0.0, 1.0), (0.0, 1.0, 0.5, 0.75, -2.0, math.nan, math.inf)])))
    ours, theirs = {}, {}
    for name in names:
        shape = (num_steps, batch, *draw(st.lists(st.integers(1, 3), max_size=2)))
        size = math.prod(shape)
        first = draw(st.lists(values, min_size=size, max_size=size))
        second = [draw(values) if draw(st.integers(0, 5)) == 0 else value for value in first]
        ours[name], theirs[name] = torch.tensor(first).view(shape), torch.tensor(second).view(shape)
    return ours, theirs, draw(st.sampled_from([0.0, 0.25, 2.0]))


@given(records())
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_plain_loops(case):
    ours, theirs, tolerance = case
    fidelity = compare_traces(ours, dict(reversed(theirs.items())), tolerance)
    assert [layer.name for layer in fidelity.layers] == list(ours)
    wanted = {name: counted(name, ours[name], theirs[name], tolerance) for name in ours}
    for layer in fidelity.layers:
        count, per_step, first = wanted[layer.name]
        assert layer.num_different == count
        assert layer.per_step == pytest.approx(per_step)
        assert str(layer.first and tuple(vars(layer.first).values())) == str(first)  # NaN is not equal to itself
        assert layer.expected_spikes == sum(value != 0 for value in ours[layer.name].flatten().tolist())
        assert layer.got_spikes == sum(value != 0 for value in theirs[layer.name].flatten().tolist())
    assert fidelity.num_different == sum(count for count, _, _ in wanted.values())
    assert fidelity.agreement == pytest.approx(1 - fidelity.num_different / sum(x.numel() for x in ours.values()))
    firsts = [first for _, _, first in wanted.values() if first]
    earliest = min(firsts, key=lambda first: first[1], default=None)
    assert (fidelity.first and (fidelity.first.layer, fidelity.first.step)) == (earliest and earliest[:2])
    again = Fidelity.from_json(fidelity.to_json())
    assert str(again) == str(fidelity)
    assert again.to_json() == fidelity.to_json()


def one(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(-1, 1, 1)


def test_the_first_difference_is_that_of_the_earliest_step_then_of_the_first_layer():
    net = {"a": one([0, 0, 0]), "b": one([0, 0, 0]), "c": one([0, 0, 0])}
    chip = {"a": one([0, 0, 1]), "b": one([0, 1, 0]), "c": one([0, 1, 0])}
    first = compare_traces(net, chip).first
    assert (first.layer, first.step, first.expected, first.got) == ("b", 1, 0, 1)


def test_outputs_that_are_no_spikes_do_not_hide_the_spikes():
    spikes = {"a": one([0, 1, 0, 1])}
    late = {"a": one([0, 1, 0, 0])}
    fidelity = compare_traces(spikes, late).with_output(one([0.5] * 4), one([0.6] * 4))
    assert (fidelity.agreement, fidelity.num_outputs, fidelity.num_different) == (0.75, 4, 1)
    assert (fidelity.first.layer, fidelity.first.step) == ("a", 3)
    fidelity = compare_traces(spikes, spikes).with_output(one([0.5] * 4), one([0.6] * 4))
    assert (fidelity.agreement, fidelity.is_exact, fidelity.first.layer) == (1.0, False, "output")


def test_spikes_are_compared_without_tolerance_and_membranes_with():
    net = {"spikes": one([0, 1]), "v": one([0.5, 1.0])}
    chip = {"spikes": one([0, 0]), "v": one([0.75, 1.5])}
    spikes, v = compare_traces(net, chip, tolerance=3.0).layers
    assert (spikes.is_binary, spikes.num_different) == (True, 1)
    assert (v.is_binary, v.num_different, v.max_difference, v.mean_difference) == (False, 0, 0.5, 0.375)
    assert compare_traces(net, chip, tolerance=0.25).layers[1].num_different == 1


def test_nan_agrees_with_nothing_and_infinity_with_itself():
    layer = compare_traces({"v": one([math.nan, math.inf])}, {"v": one([math.nan, math.inf])}, tolerance=9.0).layers[0]
    assert (layer.num_different, layer.max_difference) == (1, math.inf)
    assert layer.per_step == (0.0, 1.0)


def test_records_of_any_number_type_are_compared():
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
        assert compare_traces({"a": one([0, 1])}, {"a": one([0, 1], dtype)}).is_exact


def test_nothing_to_compare_is_agreement():
    for shape in ((0, 2, 3), (2, 0, 3)):
        fidelity = compare_traces({"a": torch.zeros(shape)}, {"a": torch.zeros(shape)})
        assert (fidelity.agreement, fidelity.layers[0].per_step, fidelity.first) == (1.0, (), None)


def test_a_share_is_never_rounded_up_to_everything():
    net = {"a": torch.zeros(1000, 1000, 3)}
    chip = {"a": torch.zeros(1000, 1000, 3)}
    chip["a"][999, 999, 2] = 1
    assert "99.9999 %" in str(compare_traces(net, chip))
    assert "100 %" not in str(compare_traces(net, chip))
    assert "100 %" in str(compare_traces(net, net))


@pytest.mark.parametrize(
    ("ours", "theirs", "error", "says"),
    [
        ({"a": 1, "b": 1}, {"a": 1}, OptionError, "lacks 'b'"),
        ({"a": 1}, {"a": 1, "z": 1}, OptionError, "has 'z', which the net's does not have. The net's layers are 'a'"),
        ({}, {"z": 1}, OptionError, r"\(none\)"),
        ({"a": 1}, {"a": 2}, ShapeError, r"'a': .* \(2, 1, 1\) and \(2, 1, 2\)"),
        ({"a": 0}, {"a": 0}, ShapeError, "one shape"),
        ({"a": 1}, {"a": None}, ShapeError, "second record, got NoneType"),
    ],
)
def test_records_of_other_layers_or_shapes_are_refused(ours, theirs, error, says):
    shapes = {0: (2,), 1: (2, 1, 1), 2: (2, 1, 2)}
    made = [{k: v if v is None else torch.zeros(shapes[v]) for k, v in record.items()} for record in (ours, theirs)]
    with pytest.raises(error, match=says):
        compare_traces(*made)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_tolerance_is_a_distance(tolerance):
    with pytest.raises(OptionError, match="tolerance"):
        compare_traces({}, {}, tolerance)


def test_output_and_decisions():
    scores = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]], [[0.0, 2.0], [0.0, 1.0], [0.0, 2.0]]])  # summed: all 1
    other = scores.clone()
    other[1, 0] = 0.0  # sample 0 now chooses class 0
    fidelity = compare_traces({}, {}).with_output(scores, other, torch.tensor([1, 1, 1]))
    assert fidelity.output.num_different == 1
    assert fidelity.decisions == Decisions(3, 1, 1.0, pytest.approx(2 / 3))
    assert fidelity.first.layer == "output"
    assert "Same decision on 2 of 3 samples" in str(fidelity)
    assert "100.00% of the net, 66.67% of the artefact" in str(fidelity)
    assert Fidelity.from_json(fidelity.to_json()) == fidelity
    unlabelled = compare_traces({}, {}).with_output(scores, other, decides=True)
    assert unlabelled.decisions == Decisions(3, 1)
    with pytest.raises(ShapeError, match="scores"):
        fidelity.with_output(scores[0], scores[0], decides=True)
    with pytest.raises(ShapeError, match="one label for each of 3"):
        fidelity.with_output(scores, scores, torch.zeros(2))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form": 2}', '{"form": 1}', '{"form": 1, "layers": [{}]}'])
def test_a_damaged_file_is_refused(text):
    with pytest.raises(InputError, match="fidelity record"):
        Fidelity.from_json(text)


@pytest.mark.parametrize(
    ("name", "wrong"), [("num_different", "1"), ("got_spikes", 0.5), ("expected_spikes", None), ("shape", [2, "1", 1])]
)
def test_counts_that_are_no_whole_numbers_are_refused(name, wrong):
    values = compare_traces({"a": one([0, 1])}, {"a": one([0, 0])}).to_dict()
    assert Fidelity.from_dict(values).num_different == 1
    values["layers"][0][name] = wrong
    with pytest.raises(InputError, match="fidelity record is damaged: TypeError: counts and sizes are whole numbers"):
        Fidelity.from_dict(values)


def test_the_json_holds_what_a_reader_looks_for():
    values = json.loads(compare_traces({"a": one([0, 1])}, {"a": one([0, 0])}).to_json())
    assert (values["agreement"], values["num_outputs"], values["num_different"]) == (0.5, 2, 1)
    assert values["first"] == {"layer": "a", "step": 1, "sample": 0, "index": [0], "expected": 1.0, "got": 0.0}
    assert (values["layers"][0]["agreement"], values["layers"][0]["per_step"]) == (0.5, [1.0, 0.0])


def test_the_page_is_self_contained_and_escapes_every_text():
    refused = OperatorRecord(HOSTILE, HOSTILE, "refused", "", HOSTILE, HOSTILE)
    folded = OperatorRecord(HOSTILE, HOSTILE, "folded", HOSTILE, HOSTILE)
    fidelity = compare_traces({HOSTILE: one([0, 1])}, {HOSTILE: one([0, 0])})
    text = fidelity_page(HOSTILE, fidelity, [refused, folded], [HOSTILE])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    for word in ("http://", "https://", "src=", "url("):
        assert word not in text, word
    assert "First difference" in text
    assert "Agreement per step" in text
    assert "50.0000 %" in text


def test_the_page_of_an_exact_artefact_and_of_one_that_was_not_run():
    assert "agrees at every step" in fidelity_page("net", compare_traces({"a": one([1])}, {"a": one([1])}))
    assert "was not run" in fidelity_page("net")


def test_more_layers_than_curves_are_named():
    net = {f"layer{index}": one([0, 1]) for index in range(20)}
    chip = {f"layer{index}": one([0, 0]) for index in range(20)}
    text = fidelity_page("net", compare_traces(net, chip))
    assert "Not drawn: layer16, layer17, layer18, layer19" in text


# the record of a net


class Twice(nn.Module):
    """One neuron called twice; a plain layer writes to the first result in place."""

    def __init__(self):
        super().__init__()
        self.neuron = IF(backend="torch")
        self.out = nn.Identity()

    def forward(self, x):
        first = self.neuron(x)
        kept = first.clone()
        first.mul_(5.0)
        return self.out(self.neuron(kept * 0.5))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), LIF(tau=3.0, backend="torch"), nn.Linear(4, 2), LI(backend="torch")).eval()


def drive(num_steps=6, *shape):
    return torch.rand(num_steps, 2, *(shape or (3,)), generator=torch.Generator().manual_seed(1)) * 6


def test_a_record_is_what_each_neuron_put_out():
    made, x = net(), drive()
    out, spikes = record_spikes(made, x)
    with torch.no_grad():
        hidden = made[1](made[0](x))
        assert hidden.any()
        assert not hidden.all()
        assert torch.equal(spikes["1"], hidden)
        assert torch.equal(spikes["3"], made(x))
        assert torch.equal(out, made(x))
    assert list(spikes) == ["1", "3"]


def test_single_steps_give_the_same_record():
    made, x = net(), drive()
    right, spikes = record_spikes(made, x)
    set_step_mode(made, "single")
    out, by_steps = record_spikes(made, x)
    assert torch.equal(out, right)
    assert list(by_steps) == list(spikes)
    assert all(torch.equal(by_steps[name], spikes[name]) for name in spikes)


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_calls_of_one_layer_are_numbered(mode):
    made, x = Twice(), drive()
    set_step_mode(made, mode)
    _, spikes = record_spikes(made, x)
    assert list(spikes) == ["neuron", "neuron#2"]
    assert set(spikes["neuron"].unique().tolist()) == {0.0, 1.0}
    if mode == "multi":
        alone = IF(backend="torch")
        assert torch.equal(spikes["neuron"], alone(x))
        assert torch.equal(spikes["neuron#2"], alone(alone(x) * 0.5))


def test_a_block_is_one_layer_and_a_loop_is_one_sequence():
    torch.manual_seed(0)
    block = ConvBNNeuron(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), IF(backend="torch"))
    made = nn.Sequential(block, fold_time(nn.Flatten(1)), ElementwiseRecurrent(IF(backend="torch")))
    assert list(neuron_layers(made)) == ["0", "2.module"]
    x = drive(5, 1, 4, 4)
    out, spikes = record_spikes(made, x)
    with torch.no_grad():
        made.eval()
        assert torch.equal(spikes["0"], made[0](x))
        assert torch.equal(spikes["2.module"], made(x))
    assert torch.equal(out, spikes["2.module"])
    assert out.any()


def test_the_net_is_left_alone():
    made, x = net().train(), drive()
    seen = []
    made[1].register_forward_hook(lambda *_: seen.append(1))
    made[1].record = ("v",)
    with streaming(made):
        made(x[:2])
        before = {name: {k: v.clone() for k, v in state.items()} for name, state in get_state(made).items()}
        recorded = made[1].recorded["v"]
        hooks = len(made[1]._forward_hooks)
        with torch.no_grad():
            alone, _ = record_spikes(made, x)
        after = get_state(made)
        assert all(torch.equal(before[n][k], after[n][k]) for n in before for k in before[n])
        assert made[1].recorded["v"] is recorded
        assert made.training
        assert len(made[1]._forward_hooks) == hooks
    assert torch.equal(alone, made.eval()(x))


def test_dropout_and_batch_norm_are_those_of_evaluation():
    made = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9), IF(backend="torch")).train()
    x = drive()
    assert torch.equal(record_spikes(made, x)[0], record_spikes(made, x)[0])


def test_what_cannot_be_recorded_is_said():
    with pytest.raises(ShapeError, match="T >= 1"):
        record_spikes(net(), torch.zeros(0, 2, 3))

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ShapeError, match="got tuple"):
        record_spikes(Pair(), drive())
