"""`Model` and `Sequential`: the bases of nets, and what they say to a plain layer that is fed a sequence."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from spikecore.errors import OptionError, ShapeError, StateShapeError
from spikecore.interfaces.model import Model as Contract
from spikecore.interfaces.model import ModelCapabilities
from spikecore.models.mlp import MLP
from spikecore.nn import LIF, Model, Sequential, fold_time, layers, set_step_mode
from spikecore.registry import name_of


class Small(Model):
    capabilities = ModelCapabilities(input_rank=3, min_input_size=4)

    def __init__(self, make_neuron, input_shape, num_outputs, conv=nn.Conv2d, **options):
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        self.conv = conv(input_shape[0], 2, 3)
        self.neuron = make_neuron()
        self.rest = nn.Sequential(
            layers.Flatten(), nn.Linear(2 * (input_shape[1] - 2) * (input_shape[2] - 2), num_outputs)
        )

    def forward(self, x):
        return self.rest(self.neuron(self.conv(x)))


def test_a_model_meets_its_contract():
    net = Small(LIF, (1, 5, 5), 3, conv=layers.Conv2d)
    assert isinstance(net, Contract)
    assert net(torch.randn(4, 2, 1, 5, 5)).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("shape", "classes", "text"),
    [
        ((5, 5), 3, r"3 sizes of at least 1, got \(5, 5\)"),
        ((1, 0, 5), 3, r"of at least 1, got \(1, 0, 5\)"),
        ((1, 3, 5), 3, r"H, W >= 4, got \(1, 3, 5\): resize"),
        ((1, 5.0, 5), 3, r"of at least 1, got \(1, 5.0, 5\)"),
        ((1, 5, 5), 0, "num_outputs >= 1, a whole number, got 0"),
        ((1, 5, 5), 3.0, "num_outputs >= 1, a whole number, got 3.0"),
        ((1, 5, 5), True, "num_outputs >= 1, a whole number, got True"),
    ],
)
def test_input_shapes_are_checked(shape, classes, text):
    with pytest.raises(ShapeError, match=text):
        Small(LIF, shape, classes)
    with pytest.raises(OptionError, match="width"):
        Small(LIF, (1, 5, 5), 3, width=1)


def test_neurons_come_from_a_function():
    for wrong in (LIF(), "lif", None):
        with pytest.raises(OptionError, match=f"make_neuron must be a function .* got {type(wrong).__name__}"):
            Small(wrong, (1, 4, 4), 3)


def test_input_that_the_net_was_not_made_for_is_told():
    net = Small(LIF, (2, 4, 4), 3, conv=layers.Conv2d)
    with pytest.raises(ShapeError, match=r"Small was made for samples of shape \(2, 4, 4\); got samples of shape \(1,"):
        net(torch.rand(2, 3, 1, 4, 4))
    with pytest.raises(
        ShapeError, match=r"takes \[T, B, ...\] of 5 axes, one fewer in single-step mode; got \(2, 3, 16\)"
    ):
        MLP(LIF, (2, 4, 4), 3)(torch.rand(2, 3, 16))
    with pytest.raises(
        ShapeError, match=r"\(2, 4, 4\); got samples of shape \(2, 5, 5\) .*does not take: .* cannot be multiplied"
    ):
        net(torch.rand(2, 3, 2, 5, 5))
    for dtype in (torch.float64, torch.uint8, torch.bool):
        with pytest.raises(ShapeError, match=rf"weights of torch.float32, got an input of {dtype}: .*x.to\("):
            net(torch.ones(2, 3, 2, 4, 4, dtype=dtype))
    net.rest[1] = nn.Linear(7, 3)
    with pytest.raises(
        RuntimeError, match="shapes cannot be multiplied"
    ):  # its own layers: the input is as it should be
        net(torch.rand(2, 3, 2, 4, 4))


def test_the_smallest_input_may_depend_on_options():
    class Deep(Small):
        def smallest_input(self):
            return 6

    assert Small(LIF, (1, 5, 5), 3).smallest_input() == 4
    with pytest.raises(ShapeError, match=r"Deep takes \[C, H, W\] with H, W >= 6, got \(1, 5, 5\)"):
        Deep(LIF, (1, 5, 5), 3)


def test_weights_in_the_package_are_listed(tmp_path, monkeypatch):
    """In `weights/MODEL`; there are none for a model that was made in an interactive session."""
    package = ModuleType("a_package")
    monkeypatch.setitem(sys.modules, "a_package", package)

    class Shipped(Small):
        __module__ = "a_package.nets"

    assert Shipped.weights() == {}
    package.__file__ = str(tmp_path / "__init__.py")
    assert Shipped.weights() == {}
    folder = tmp_path / "weights" / name_of(Shipped)
    folder.mkdir(parents=True)
    for name in ("mnist.safetensors", "digits.safetensors", "digits.json"):
        (folder / name).touch()
    expected = {name: folder / f"{name}.safetensors" for name in ("digits", "mnist")}
    assert Shipped.weights() == expected


def test_a_plain_convolution_in_a_model_names_fold_time():
    net = Small(LIF, (1, 5, 5), 3)
    text = r"Conv2d at 'conv' would be given a sequence.*of the same name of spikecore\.nn.*fold_time\(module\)"
    with pytest.raises(ShapeError, match=text):
        net(torch.randn(4, 2, 1, 5, 5))


def test_a_plain_convolution_where_no_trace_goes_names_fold_time():
    class Branching(Small):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    net = Branching(LIF, (1, 5, 5), 3)
    text = r"Conv2d at 'conv' was given \(4, 2, 1, 5, 5\).*fold_time\(module\), or use spikecore\.nn\.Conv2d"
    with pytest.raises(ShapeError, match=text) as caught:
        net(torch.randn(4, 2, 1, 5, 5))
    assert "Expected 3D" in str(caught.value.__cause__)


PLAIN = [
    (nn.Conv1d(2, 2, 1), (2, 5)),
    (nn.Conv2d(2, 2, 1), (2, 5, 5)),
    (nn.Conv3d(2, 2, 1), (2, 3, 3, 3)),
    (nn.ConvTranspose2d(2, 2, 1), (2, 5, 5)),
    (nn.BatchNorm2d(2), (2, 5, 5)),
    (nn.BatchNorm3d(2), (2, 3, 3, 3)),
    (nn.MaxPool2d(2), (2, 4, 4)),
    (nn.AvgPool2d(2), (2, 4, 4)),
    (nn.AdaptiveAvgPool2d(2), (2, 4, 4)),
    (nn.AdaptiveMaxPool1d(1), (2, 4)),
]


@pytest.mark.parametrize(
    ("layer", "shape"), PLAIN, ids=lambda value: str(value) if isinstance(value, nn.Module) else ""
)
def test_plain_layers_in_a_chain(layer, shape):
    chain, x = Sequential(LIF(), nn.Sequential(layer)), torch.randn(3, 4, *shape)
    with pytest.raises(
        ShapeError, match=rf"{type(layer).__name__} at '1\.0' would be given a sequence.*fold_time\(module\)"
    ):
        chain(x)
    assert Sequential(LIF(), fold_time(layer))(x).shape[:2] == (3, 4)
    set_step_mode(chain, "single")
    assert chain(x[0]).shape[0] == 4


@pytest.mark.parametrize(
    ("chain", "shape"),
    [
        ((nn.Flatten(), nn.Linear(8, 2)), (2, 2, 2)),
        ((nn.BatchNorm1d(5),), (5,)),
        ((nn.GroupNorm(5, 5),), (5, 2, 2)),
        ((nn.Upsample(scale_factor=2), fold_time(nn.Flatten()), nn.Linear(32, 2)), (2, 2, 2)),
    ],
)
def test_layers_that_let_a_sequence_through_are_suspected(chain, shape):
    with pytest.raises(
        ShapeError, match=rf"{type(chain[0]).__name__} at '1' would be given a sequence.*fold_time\(module\)"
    ):
        Sequential(LIF(), *chain)(torch.randn(3, 4, *shape))


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        Sequential(LIF(), nn.Linear(3, 2))(torch.randn(3, 4, 5))
    assert not isinstance(caught.value, ShapeError)
    with pytest.raises(RuntimeError, match="expected input"):
        Sequential(LIF(), layers.Conv2d(3, 2, 1))(torch.randn(3, 4, 5, 6, 6))
    single = Sequential(LIF(step_mode="single"), nn.Conv2d(2, 2, 1))
    with pytest.raises(RuntimeError, match="Expected 3D"):
        single(torch.randn(3, 4, 2, 5, 5))
    single = Sequential(LIF(step_mode="single"))
    single(torch.zeros(2, 3))
    with pytest.raises(StateShapeError):
        single(torch.zeros(4, 3))


def test_linear_takes_sequences_as_it_is():
    chain = Sequential(LIF(), nn.Linear(5, 2))
    assert chain(torch.randn(3, 4, 7, 5)).shape == (3, 4, 7, 2)


def test_sequential_has_the_keys_of_torch_and_compiles():
    chain = Sequential(layers.Conv2d(1, 2, 3), layers.Flatten(), nn.Linear(18, 2))
    assert list(chain.state_dict()) == list(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 2)).state_dict()
    )
    x = torch.randn(3, 2, 1, 5, 5)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(chain, backend="eager", fullgraph=True)(x), chain(x))
    net = Small(LIF, (1, 5, 5), 3, conv=layers.Conv2d)
    torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(x), net(x))
