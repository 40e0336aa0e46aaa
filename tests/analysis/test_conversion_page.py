"""The page of a converted net: curves, tables, and text from users."""

import re

import pytest

from spikecore.analysis import conversion_page
from spikecore.interfaces import ConversionReport, LayerReport

HOSTILE = '<script>alert("x")</script>'


def report(num_layers=3, num_steps=5):
    layers = [LayerReport(f"conv{HOSTILE}", "kept", HOSTILE)]
    for index in range(num_layers):
        correlation = tuple(1 - (1 + index) / (10 + 10 * step) for step in range(num_steps))
        layers.append(LayerReport(f"relu{index}", "became", "IF", (0.25, 1.5), correlation, 0.125))
    curves = {
        "accuracy over T": ((1.0, 0.25), (2.0, 0.875)),
        "accuracy of the given net": ((1.0, 0.9375), (2.0, 0.9375)),
        "my own": ((1.0, 3.0), (2.0, 4.0)),
    }
    return ConversionReport(tuple(layers), curves, {"MACs of the given net": 1234.0})


def test_what_was_measured_is_drawn_and_listed():
    text = conversion_page("net by rule", report(), ["Decisions on 64 samples."])
    assert "<title>net by rule</title>" in text
    assert "Decisions on 64 samples." in text
    for name, last in (("accuracy, T = 2", "87.50%"), ("accuracy of the given net", "93.75%"), ("became", "3")):
        assert f"<dt>{name}</dt><dd>{last}</dd>" in text
    assert text.count("<svg") == 3
    for title in ("Accuracy against T", "my own", "Correlation of each layer"):
        assert f"<h3>{title}</h3>" in text
    assert "<title>relu2 1: 0.7</title>" in text
    assert "0.25 to 1.5" in text
    assert "1234" in text


def test_text_of_users_is_escaped():
    text = conversion_page(HOSTILE, report(), [HOSTILE])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_of_many_layers_the_worst_are_drawn():
    text = conversion_page("net", report(20))
    (drawn,) = re.findall(r'id="correlation".*?</figure>', text, re.DOTALL)
    assert {f"relu{index}" for index in range(20) if f">relu{index}<" in drawn} == {f"relu{i}" for i in range(4, 20)}
    assert "Not drawn, since they are nearer: relu3, relu2, relu1, relu0" in text


def test_nothing_measured_draws_nothing():
    text = conversion_page("net", ConversionReport((LayerReport("a", "kept", "linear"),)))
    assert "<svg" not in text
    assert "<td>linear</td>" in text
    # After the last step alone there is no curve to draw.
    one = ConversionReport((LayerReport("a", "became", "few", 1.0, (0.99,), 0.1),))
    assert "<svg" not in conversion_page("net", one)


@pytest.mark.parametrize(
    ("threshold", "text"), [(None, ""), (0.5, "0.5"), ((0.25, 1.5, 1.0), "0.25 to 1.5"), ((2.0, 2.0), "2")]
)
def test_thresholds_are_written_as_a_number_or_a_range(threshold, text):
    assert LayerReport("relu", "became", "IF", threshold).threshold_text == text
