"""A run.json with a valid checksum, made by hand: every value of another type gives a page or an error of ours."""

import json

import pytest

import spikecore
from spikecore.cli import main
from spikecore.errors import SpikeError
from spikecore.run.record import FILE, OWN_SUM, sealed
from spikecore.run.report import write_report

ODD = [None, True, -1, 1e308, '"><svg onload=alert(1)>', [], [[1]], {}, {"a": {"b": None}}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    small = {"trainer": {"epochs": 1}, "encoder": {"num_steps": 1}, "model": {"name": "mlp"}}
    spikecore.run(small, out=out)
    return out


def places(value, path=()):
    """Every path below a JSON value."""
    if path:
        yield path
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from places(value[key], (*path, key))


def replaced(plain, path, odd):
    twin = json.loads(json.dumps(plain))
    at = twin
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = odd
    return twin


def test_every_value_of_another_type(finished, tmp_path):
    plain = json.loads((finished / FILE).read_text())
    del plain[OWN_SUM]
    metrics = (finished / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(metrics)
    num_refused = num_pages = 0
    for index, path in enumerate(places(plain)):
        odd = ODD[index % len(ODD)]
        (tmp_path / FILE).write_text(sealed(replaced(plain, path, odd)))
        try:
            page = write_report(tmp_path).read_text()
        except SpikeError:
            num_refused += 1
        else:
            num_pages += 1
            assert "<svg onload" not in page
    assert num_refused > 20
    assert num_pages > 20


@pytest.mark.parametrize(
    "line", ['{"epoch": []}', '{"epoch": {"a": 1}, "loss": "x"}', "[]", '{"loss": [1]}', '{"": {}}']
)
def test_odd_lines_of_metrics(finished, tmp_path, line):
    for name in (FILE, "metrics.jsonl"):
        (tmp_path / name).write_text((finished / name).read_text())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    assert "<html" in write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    "path", [("config", "model", "name"), ("config", "neuron", "surrogate", "name"), ("started",), ("metrics",)]
)
def test_a_record_cannot_control_the_terminal(finished, tmp_path, monkeypatch, capsys, path):
    evil = "\x1b]0;owned\x07\u202e"
    plain = json.loads((finished / FILE).read_text())
    twin = replaced(plain, path, {evil: 1.0} if path == ("metrics",) else evil)
    (tmp_path / FILE).write_text(sealed(twin))
    monkeypatch.setattr("sys.argv", ["spike", "compare", str(finished), str(tmp_path)])
    main()
    shown = "".join(capsys.readouterr())
    assert "curves" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
