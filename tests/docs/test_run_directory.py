"""The page about run directories names every file that a run leaves, and every option about them."""

from dataclasses import fields
from pathlib import Path

import spikecore
from spikecore.run.config import CHANGEABLE, RunOptions, resolve

PAGE = Path(__file__).parents[2] / "docs/how-to/resume-and-read-a-run.md"


def test_every_file_and_option_is_there(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    small = {"model": {"name": "mlp", "hidden": [4]}, "trainer": {"epochs": 1}, "dataset": {"test_share": 0.9}}
    spikecore.run(resolve(small), out=tmp_path / "r")
    left = {path.name + "/" * path.is_dir() for path in (tmp_path / "r").iterdir()}
    assert len(left) >= 8
    assert all(f"`{name}`" in text for name in left)
    assert set(CHANGEABLE) < {field.name for field in fields(RunOptions.Config)}
    assert all(key in text for key in CHANGEABLE)
    for field in fields(RunOptions.Config):
        if field.name in ("checkpoint_every_s", "checkpoint_every_steps", "keep_last"):
            assert f"{field.name} = {field.default}" in text
