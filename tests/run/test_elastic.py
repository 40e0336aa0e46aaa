"""torchrun restarts killed processes, and they go on with the run of those before them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import spikecore
from tests.run.processes_scenario import SMALL

SCENARIO = Path(__file__).with_name("elastic_scenario.py")
SOURCE = Path(spikecore.__file__).parents[1]
HANG_S = 240.0


def test_restarted_processes_go_on_with_the_run(tmp_path):
    words = [word for change in SMALL for word in ("--set", change)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(SCENARIO), "run", *words],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "runs").iterdir()
    record = json.loads((directory / "run.json").read_text())
    assert record["status"] == "finished"
    (resumption,) = record["resumes"]
    assert resumption["checkpoint"] == "checkpoint-00000006"
    assert "process 1 is gone" in done.stderr
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    whole = spikecore.run(_tables(SMALL) | {"run": {"report": False}}, out=tmp_path / "whole")
    # One process sums in another order: the numbers agree but for rounding.
    for name, value in record["metrics"].items():
        assert abs(value - whole.metrics[name]) < 2e-2, name
    assert all(value.isfinite().all() for value in spikecore.load(directory).state_dict().values())


def _tables(changes):
    tables = {}
    for change in changes:
        path, _, text = change.partition("=")
        table, key = path.split(".")
        try:
            value = json.loads(text)
        except ValueError:
            value = text.strip('"')
        tables.setdefault(table, {})[key] = value
    tables.pop("run")
    return tables
