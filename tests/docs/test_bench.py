"""What is said about speed is what was measured; the reference of `spike bench` names all that it takes and writes."""

import importlib.util
import re
from pathlib import Path

import spikecore
from spikecore.bench.rows import COLUMNS, environment
from spikecore.cli.bench import command

ROOT = Path(spikecore.__file__).parents[1]
REFERENCE = (ROOT / "docs/reference/bench.md").read_text(encoding="utf-8")


def readme_table():
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "tests/benchmarks/readme_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(candidate, shape, measure, wall_ms, **values):
    common = {"subject": "lif", "status": "ok", "kind": "backend", "version": "", "git_state": "changed"}
    where = {
        "device_name": "A CPU",
        "threads": "2",
        "torch": "2.13.0",
        "date": "2026-01-02",
        "git_commit": "abcdef1234567",
    }
    return {**common, **where, "candidate": candidate, "shape": shape, "measure": measure, "wall_ms": wall_ms, **values}


def test_the_readme_shows_what_the_csv_holds():
    script = readme_table()
    readme = script.README.read_text(encoding="utf-8")
    assert script.renewed(readme, script.read()) == readme, "run python tests/benchmarks/readme_table.py"


def test_the_table_is_relative_to_the_baseline():
    rows = [
        row("torch", "4,1,2", "forward", "10"),
        row("torch", "4,1,2", "forward+backward", "30"),
        row("quick", "4,1,2", "forward", "0.25"),
        row("quick", "4,1,2", "forward+backward", "4"),
        row("broken", "4,1,2", "forward", "", status="failed"),
        row("spikingjelly", "4,1,2", "forward", "5", kind="peer", version="2.0.0"),
        row("spikingjelly", "4,1,2", "forward+backward", "12.34", kind="peer", version="2.0.0"),
        row("torch", "8,1,2", "forward", "2"),
        row("spikingjelly", "8,1,2", "forward", "1", kind="peer", version="2.0.0"),
        row("torch", "8,1,2", "single step", "2"),
    ]
    caption, _, *lines = readme_table().table(rows).splitlines()
    assert "A CPU, 2 threads, torch 2.13.0, 2026-01-02, abcdef123, changed." in caption
    assert lines == [
        "| | 4,1,2 | 8,1,2 |",
        "|---|---|---|",
        "| spikingjelly 2.0.0, ms | 5 / 12.3 | 1 / – |",
        "| torch | 0.5× / 0.41× | 0.5× / – |",
        "| quick | 20× / 3.1× | – |",
    ]
    without = readme_table().table([entry for entry in rows if entry["kind"] != "peer"]).splitlines()
    assert "| torch, ms | 10 / 30 | 2 / – |" in without
    assert "| quick | 40× / 7.5× | – |" in without


def test_whole_nets_have_a_line_for_each_rate():
    def timed(subject, candidate, wall_ms, **values):
        return row(candidate, "4,8", "inference", wall_ms, **{"subject": subject, **values})

    rows = [
        timed("VGG-11 at 5%", "dense NCHW", "30"),
        timed("VGG-11 at 5%", "dense channels-last", "24"),
        timed("VGG-11 at 5%", "events", "8"),
        timed("VGG-11 at 5%", "optimized", "6"),
        timed("VGG-11 at 5%", "spikingjelly", "48"),
        timed("VGG-11 at 5%", "bfloat16 autocast", "12"),
        timed("VGG-11 at 10%", "dense NCHW", "30"),
        timed("VGG-11 at 10%", "optimized", "", status="failed"),
        timed("VGG-11 at 20%", "dense NCHW", "30"),
        timed("VGG-11 at 20%", "events", "20"),
    ]
    script = readme_table()
    assert script.nets_table(rows).splitlines()[4:] == [
        "| VGG-11, inference | 5% | 24 | 0.5× | 2× | 4× |",
        "| VGG-11, inference | 20% | 30 | – | – | 1.5× |",
    ]
    assert script.nets_table([row("torch", "4,1,2", "forward", "10")]) == ""


def test_without_a_measurement_no_figure_is_shown():
    script = readme_table()
    assert script.table([]) == script.NOTHING
    assert not re.search(r"\d", script.NOTHING)


def test_the_reference_names_every_option_and_column():
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    assert len(options) > 12
    for name in (*options, *COLUMNS, *environment(1)):
        assert f"`{name}`" in REFERENCE, name
