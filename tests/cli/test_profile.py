"""`spike profile`: of a configuration, of a run and of what has no data."""

import json

import pytest

CONFIG = """
[model]
name = "mlp"
hidden = [8]
[neuron]
name = "lif"
tau = 1.2
[encoder]
name = "poisson"
num_steps = 6
[trainer]
epochs = 1
[dataset]
test_share = 0.9
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "exp.toml").write_text(CONFIG)
    return "exp.toml"


def test_a_configuration_and_its_artificial_net(spike, config):
    status, said = spike("profile", config, "--json", "--samples", 4, "--calls", 0)
    assert status == 0, said
    measured = json.loads(said)
    own, ann = measured["operations"], measured["ann"]
    assert (own["num_samples"], own["num_steps"], ann["num_steps"]) == (4, 6, 1)
    first, last = [layer for layer in own["layers"] if layer["dense"]]
    assert first["macs"] == 0 < first["acs"] < first["dense"] == 6 * 64 * 8  # spikes of the encoder
    assert last["dense"] == 6 * 8 * 10
    assert ann["total"]["macs"] == 64 * 8 + 8 * 10
    assert ann["total"]["energy_pj"]["horowitz-fp32"] == pytest.approx(4.6 * 592)
    assert measured["weights"] == "the seed's weights, untrained"


def test_a_run_in_a_table_and_on_a_page(spike, config, tmp_path):
    assert spike("run", config, "--out", "r", "-q")[0] == 0
    options = ("--samples", 3, "--calls", 1, "--html", "cost.html", "--energy", "horowitz-int8")
    status, said = spike("profile", "r", *options)
    assert status == 0, said
    assert "energy in nJ" in said
    assert "time in µs" in said
    assert "lemaire-int32" in said
    assert "untrained" not in said
    page = (tmp_path / "cost.html").read_text(encoding="utf-8")
    for figure in ("operations", "energy", "times"):
        assert f'id="{figure}"' in page
    assert "<script" not in page


def test_refusals(spike, config):
    assert spike("profile", config, "--energy", "hope")[0] == 2
    status, said = spike("profile", config, "--split", "val", "--set", "trainer.val_share=0.0")
    assert status == 2
    assert "no split 'val'" in said
    assert "count_operations" in said
