"""What is not there says what it is called here, or how to get it."""

import pickle
import threading

import pytest
import torch

from spikecore import nn


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("LIFNode", "what other libraries call LIFNode is spikecore.nn.LIF"),
        ("ParametricLIFNode", "is spikecore.nn.ParametricLIF"),
        ("IAF", "is spikecore.nn.IF"),
        ("KLIFNode", "it is spikecore.create('neuron', 'klif'); klif is in the plugin neuron-zoo: pip install"),
        ("lif", "it is spikecore.create('neuron', 'lif')"),
        ("NoSuchThing", "has no attribute 'NoSuchThing'"),
    ],
)
def test_a_name_of_another_library(name, says):
    with pytest.raises(AttributeError) as caught:
        getattr(nn, name)
    assert says in str(caught.value)
    assert not hasattr(nn, name)


def test_a_sequence_that_nobody_asked_for():
    x = torch.ones(3, 2, 1)
    neuron = nn.LIF(tau=3.0, record=("h",))
    with pytest.raises(KeyError, match=r"LIF has not recorded 'h' yet: call it"):
        neuron.recorded["h"]
    neuron(x)
    assert neuron.recorded.keys() == {"h"}
    with pytest.raises(KeyError, match=r"LIF does not record 'v': make it with record=\('h', 'v',\)"):
        neuron.recorded["v"]
    assert neuron.recorded.get("v") is None
    with pytest.raises(KeyError, match=r"record=\('v',\)"):
        nn.IF().recorded["v"]


def test_another_thread_has_recorded_nothing():
    neuron, said = nn.LIF(record=("v",)), []
    neuron(torch.ones(3, 2, 1))

    def look():
        try:
            neuron.recorded["v"]
        except KeyError as error:
            said.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert "in this thread" in said[0]


def test_what_was_recorded_can_be_pickled():
    neuron = nn.LIF(record=("v",))
    neuron(torch.ones(3, 2, 1))
    again = pickle.loads(pickle.dumps(dict(neuron.recorded)))
    assert torch.equal(again["v"], neuron.recorded["v"])
