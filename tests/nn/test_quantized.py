"""Records of quantization on modules: round trips, copies, moves, and what is refused."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spikecore import nn as snn
from spikecore.errors import InputError
from spikecore.interfaces.quantized import QuantizedLayer, QuantizedNeuron
from spikecore.nn.quantized import attach, prepare, read, records, remove


def layer(**changes):
    generator = torch.Generator().manual_seed(3)
    given = {
        "values": torch.randint(-8, 8, (3, 2, 3, 3), generator=generator, dtype=torch.int8),
        "scale": torch.tensor([0.1, 1 / 3, 2.0]),
        "zero_point": torch.tensor([0, 1, -2], dtype=torch.int32),
        "bits": 4,
        "axis": 0,
        "bias": torch.tensor([100, -70000, 5], dtype=torch.int32),
        "input_scale": 0.7,
    }
    return QuantizedLayer(**{**given, **changes})


def neuron(**changes):
    given = {
        "threshold": torch.tensor(64000, dtype=torch.int32),
        "scale": torch.tensor(1 / 64000, dtype=torch.float64),
        "decays": {"v": torch.tensor([3072, 4096, 0]), "current": torch.tensor(2048)},
        "decay_bits": 12,
        "state_bits": 24,
        "v_reset": torch.tensor(-5),
    }
    return QuantizedNeuron(**{**given, **changes})


def net():
    return snn.Sequential(snn.Conv2d(2, 3, 3), snn.CubaLIF(), snn.Flatten(), nn.Linear(3, 2))


def assert_equal(ours, right):
    assert type(ours) is type(right)
    for name, value in vars(right).items():
        got = getattr(ours, name)
        if isinstance(value, dict):
            assert {key: part.tolist() for key, part in got.items()} == {k: part.tolist() for k, part in value.items()}
        elif isinstance(value, torch.Tensor):
            assert torch.equal(got, value), name
            assert got.dtype == value.dtype, name
        else:
            assert got == value, name
            assert type(got) is type(value), name


@pytest.fixture
def quantized():
    made = net()
    attach(made[0], layer())
    attach(made[1], neuron())
    return made


def test_what_is_attached_is_read(quantized):
    assert_equal(read(quantized[0]), layer())
    assert_equal(read(quantized[1]), neuron())
    assert read(quantized[3]) is None
    assert list(records(quantized)) == ["0", "1"]
    attach(quantized[1], neuron(v_reset=None, decays={}))
    assert_equal(read(quantized[1]), neuron(v_reset=None, decays={}))
    remove(quantized[1])
    remove(quantized[3])
    assert list(records(quantized)) == ["0"]


def test_the_dequantized_weight():
    record = layer()
    right = torch.empty(3, 2, 3, 3)
    for channel, (scale, zero) in enumerate(zip([0.1, 1 / 3, 2.0], [0, 1, -2], strict=True)):
        right[channel] = (record.values[channel].float() - zero) * scale
    torch.testing.assert_close(record.dequantize(), right)
    whole = layer(scale=torch.tensor(0.5), zero_point=torch.tensor(3), axis=None)
    torch.testing.assert_close(whole.dequantize(), (whole.values.float() - 3) * 0.5)
    turned = layer(scale=torch.tensor([0.5, 2.0]), zero_point=torch.tensor([0, 0]), axis=1)
    torch.testing.assert_close(turned.dequantize()[:, 1], turned.values[:, 1].float() * 2.0)
    wide = QuantizedLayer(
        torch.tensor([2**31 - 1], dtype=torch.int32), torch.tensor(1.0, dtype=torch.float64), torch.tensor(-1), 32
    )
    assert wide.dequantize().item() == 2**31


def test_the_net_computes_as_before(quantized):
    plain = net()
    plain.load_state_dict(quantized.state_dict(), strict=False)
    x = torch.rand(5, 2, 2, 3, 3) * 4
    assert torch.equal(quantized(x), plain(x))
    assert [node.name for node in snn.trace_net(quantized).layers] == ["0", "1", "2", "3"]


def test_a_fresh_net_takes_the_state_dict(quantized, tmp_path):
    save_file(quantized.state_dict(), tmp_path / "net.safetensors")
    state = load_file(tmp_path / "net.safetensors")
    fresh = net()
    with pytest.raises(RuntimeError, match=r"0\.quantized\.values"):
        fresh.load_state_dict(state)
    assert prepare(fresh, state) == ["0", "1"]
    fresh.load_state_dict(state)
    assert_equal(read(fresh[0]), layer())
    assert_equal(read(fresh[1]), neuron())
    assert prepare(fresh, net().state_dict()) == []
    assert records(fresh) == {}
    fresh.load_state_dict(net().state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_have_records_of_their_own(quantized, copied):
    twin = copied(quantized)
    read(twin[0]).values.zero_()
    assert_equal(read(quantized[0]), layer())
    assert_equal(read(twin[1]), neuron())


@pytest.mark.parametrize("move", ["half", "double", "bfloat16", "float", "cpu"])
def test_numbers_stay_exact_when_the_net_is_converted(quantized, move):
    getattr(quantized, move)()
    assert_equal(read(quantized[0]), layer())
    assert_equal(read(quantized[1]), neuron())
    if move == "half":
        assert quantized[0].weight.dtype == torch.float16


def test_records_move_with_the_net(quantized):
    quantized.to("meta", torch.float16)
    assert {buffer.device.type for buffer in quantized[0].quantized.buffers()} == {"meta"}
    assert quantized[0].quantized.scale.dtype == torch.float32
    assert quantized[0].quantized.values.dtype == torch.int8


def test_the_record_is_a_copy():
    record, made = layer(), net()
    attach(made[0], record)
    record.values.zero_()
    assert read(made[0]).values.any()


WRONG = [
    (
        0,
        {"values": torch.full((3, 2, 3, 3), 8, dtype=torch.int8)},
        r"values must be -8 to 7 \(signed 4-bit\), got 8 to 8",
    ),
    (0, {"signed": False}, r"values must be 0 to 15 \(unsigned 4-bit\)"),
    (0, {"values": torch.zeros(3, 2, 3, 3)}, "values must be integers, got torch.float32"),
    (0, {"values": torch.zeros(3, 2, 3, 2, dtype=torch.int8)}, r"the weight has \(3, 2, 3, 3\)"),
    (0, {"scale": torch.tensor([0.1, 0.0, 2.0])}, "scale must be positive and finite"),
    (0, {"scale": torch.tensor([0.1, float("nan"), 2.0])}, "scale must be positive and finite"),
    (0, {"scale": torch.tensor(0.1), "zero_point": torch.tensor(0)}, r"scale has the shape \(\), expected \(3,\)"),
    (0, {"axis": 1}, r"expected \(2,\) for axis 1"),
    (0, {"axis": 4}, "axis must be 0 to 3 or None"),
    (0, {"zero_point": torch.tensor(0)}, r"zero_point has the shape \(\)"),
    (0, {"zero_point": torch.tensor([0, 9, 0])}, "zero_point must be -8 to 7"),
    (0, {"bias": torch.zeros(2, dtype=torch.int32)}, r"bias has the shape \(2,\), expected \(3,\)"),
    (0, {"bias": torch.zeros(3)}, "bias must be integers"),
    (0, {"bits": 33}, "bits must be 1 to 32"),
    (0, {"input_scale": 0.0}, "input_scale must be positive"),
    (1, {"threshold": torch.tensor(2**23)}, r"threshold must be -8388608 to 8388607 \(signed 24-bit\)"),
    (1, {"decays": {"v": torch.tensor(4097)}}, "the decay of v must be 0 to 4096"),
    (1, {"decays": {"w": torch.tensor(1)}}, "decays name w; the neuron's states are current, v"),
    (1, {"threshold": torch.tensor([1, 2])}, r"one C, got threshold \(2,\), v \(3,\)"),
    (1, {"state_bits": 65}, "state_bits must be 2 to 64"),
    (1, {"decay_bits": 40}, "decay_bits must be 0 to 32"),
    (1, {"scale": torch.tensor(1)}, "scale must be floating point"),
]


@pytest.mark.parametrize(("index", "changes", "message"), WRONG)
def test_wrong_records_are_refused(index, changes, message):
    made = net()
    with pytest.raises(InputError, match=message):
        attach(made[index], (layer if index == 0 else neuron)(**changes))
    assert records(made) == {}


def test_wrong_modules_are_refused():
    block = snn.ConvBNNeuron(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), snn.CubaLIF())
    with pytest.raises(InputError, match="of a block take its `conv`"):
        attach(block, layer())
    with pytest.raises(InputError, match="of a block take its `neuron`"):
        attach(block, neuron())
    attach(block.conv, layer())
    attach(block.neuron, neuron())
    assert list(records(block)) == ["conv", "neuron"]


def test_a_damaged_or_foreign_state_is_refused(quantized):
    state = quantized.state_dict()
    with pytest.raises(InputError, match="records of 0, 1, which Linear lacks"):
        prepare(nn.Linear(2, 2), state)
    lacking = {key: value for key, value in state.items() if key != "0.quantized.scale"}
    with pytest.raises(InputError, match="record of '0' is damaged: it lacks 'scale'"):
        prepare(net(), lacking)
    other = {**state, "0.quantized.values": state["0.quantized.values"].to(torch.int32) * 1000}
    with pytest.raises(InputError, match="values must be -8 to 7"):
        prepare(net(), other)
    with pytest.raises(RuntimeError, match=r"0\.quantized\.values is torch\.int32, expected torch\.int8"):
        quantized.load_state_dict(other)
    assert_equal(read(quantized[0]), layer())
    shifted = {**state, "0.quantized.zero_point": state["0.quantized.zero_point"] + 20}
    with pytest.raises(RuntimeError, match="zero_point must be -8 to 7"):
        quantized.load_state_dict(shifted)
