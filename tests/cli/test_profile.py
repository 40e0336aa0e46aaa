"""`spike profile`: of a configuration, of a run and of what has no data."""

import json

import pytest

from tests.terminals import plain, session

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


def test_the_report_of_a_run_shows_what_it_costs(spike, config, tmp_path):
    assert spike("run", config, "--out", "r", "-q")[0] == 0
    report = tmp_path / "r" / "report.html"
    assert "<h2>Cost" not in report.read_text(encoding="utf-8")
    status, said = spike("profile", "r", "--samples", 3, "--calls", 1, "--json")
    assert status == 0, said
    measured = json.loads(said)
    text = report.read_text(encoding="utf-8")
    assert "<h2>Cost" in text
    for figure in ("operations", "energy", "times"):
        assert f'id="{figure}"' in text
    assert f"{measured['operations']['total']['energy_pj']['horowitz-fp32'] / 1000:.5g}" in text
    assert measured["weights"] in text
    assert spike("report", "r")[0] == 0
    assert report.read_text(encoding="utf-8") == text  # made from the files alone
    assert spike("eval", "r", "--json")[0] == 0  # the directory is still a sound run


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(config, tmp_path, columns):
    arguments = ("profile", config, "--samples", "2", "--calls", "1", "--set", "model.hidden=[1000, 8]")
    status, _, written = session(columns, arguments, tmp_path, is_stdout_too=True)
    assert status == 0, written
    lines = plain(written)
    assert max(map(len, lines)) < columns
    heads = [line for line in lines if line.startswith("layer ")]
    shown = "  ".join(heads)
    names = ("kind", "parameters", "MAC", "AC", "SynOps", "spikes", "rate", "state", "accesses", "energy", "time in")
    assert all(shown.count(f"  {name}") == 1 for name in names), heads
    assert len(heads) == 2 or columns == 120, "twelve columns take more than 80"
    assert sum(line.startswith("layers.0 ") for line in lines) == len(heads)


@pytest.mark.parametrize("damage", ["{", '{"source": 3}', "[]"])
def test_a_damaged_profile_costs_the_report_nothing_else(spike, config, tmp_path, damage):
    assert spike("run", config, "--out", "r", "-q")[0] == 0
    (tmp_path / "r" / "profile.json").write_text(damage)
    assert spike("report", "r")[0] == 0
    text = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "profile.json is damaged" in text
    assert 'id="loss"' in text


def test_refusals(spike, config):
    assert spike("profile", config, "--energy", "hope")[0] == 2
    status, said = spike("profile", config, "--split", "val", "--set", "trainer.val_share=0.0")
    assert status == 2
    assert "no split 'val'" in said
    assert "count_operations" in said
