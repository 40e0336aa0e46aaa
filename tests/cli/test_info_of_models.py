"""What `spike info model NAME` says of the size that a model was published in."""

from pathlib import Path

COMPONENTS = Path(__file__).with_name("components.py")


def test_the_published_size_is_shown(spike):
    status, output = spike("info", "model", "toy-weighted", "--load", COMPONENTS)
    assert status == 0
    _, _, published = output.partition("published")
    shown = 'parameters: 113 macs: 102 input_shape: [1, 3, 4] num_outputs: 5 reference: "A. Author 2020"'
    assert " ".join(published.split()) == shown


def test_a_model_without_one_has_no_such_section(spike):
    status, output = spike("info", "model", "mlp")
    assert status == 0
    assert "published" not in output
