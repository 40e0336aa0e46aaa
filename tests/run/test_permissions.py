"""Files and folders that this user may not read or write, also where the tests run as root."""

import os

import pytest
import torch
from click.testing import CliRunner

import spikecore
from spikecore import cli
from spikecore.cli import spike as spike_command
from spikecore.datasets.store import make_directory, write_aside
from spikecore.errors import ConfigError, DatasetError, RunError, SpikeError
from spikecore.run.config import resolve
from spikecore.run.context import Context
from spikecore.run.experiment import evaluate, load, resume
from spikecore.testing.permissions import heed_permissions

SMALL = {
    "run": {"checkpoint_every_steps": 2, "report": False},
    "dataset": {"test_share": 0.3},
    "encoder": {"name": "poisson", "num_steps": 2},
    "model": {"name": "mlp", "hidden": [8]},
    "trainer": {"epochs": 2, "batch_size": 128},
}
NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture(autouse=True)
def permissions_bite(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with heed_permissions():
        yield
    torch.set_num_threads(before)
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o755)


def weights(directory, which="last"):
    return {name: value.clone() for name, value in load(directory, which).state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "r"
    spikecore.run(resolve(SMALL), out=out)
    return weights(out)


def interrupted(out, monkeypatch, count=13):
    """A run that stops in its second epoch of two."""
    checkpoint = Context.checkpoint

    def stop(self, score=None):
        self.stopping = self.count + 1 == count
        checkpoint(self, score)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(resolve(SMALL), out=out)
    return out


def is_whole(directory, whole):
    resume(directory)
    ours = weights(directory)
    return ours.keys() == whole.keys() and all(torch.equal(ours[name], whole[name]) for name in whole)


def spike(*arguments):
    """Output of a command that may fail, but with an error that `main` explains."""
    outcome = CliRunner().invoke(spike_command, [str(argument) for argument in arguments])
    explained = SystemExit, SpikeError, PermissionError
    assert outcome.exception is None or isinstance(outcome.exception, explained), outcome.exception
    return outcome


@root
def test_root_is_bound_in_this_thread_and_afterwards_no_more(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(PermissionError):
        (tmp_path / "closed" / "x").touch()
    (tmp_path / "secret").touch(mode=0)
    with pytest.raises(PermissionError):
        (tmp_path / "secret").read_text()
    pid = os.fork()
    if not pid:
        try:
            (tmp_path / "secret").read_text()
        except PermissionError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_new_run_in_a_folder_that_takes_nothing(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(ConfigError, match=r"cannot be written: .*Permission denied"):
        spikecore.run(resolve(SMALL), out=tmp_path / "closed" / "r")
    assert not list((tmp_path / "closed").iterdir())


def test_a_run_that_may_only_be_read(tmp_path, monkeypatch, whole):
    out = interrupted(tmp_path / "r", monkeypatch)
    folders = [out, out / "checkpoints", *(out / "checkpoints").iterdir()]
    for folder in folders:
        folder.chmod(0o555)
    before = sorted(path for path in out.rglob("*"))
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        resume(out)
    assert evaluate(out), "reading is all that this takes"
    report = spike("report", out)
    assert report.exit_code != 0
    assert sorted(path for path in out.rglob("*")) == before
    for folder in folders:
        folder.chmod(0o755)
    assert is_whole(out, whole)


@pytest.mark.parametrize("name", [".", "checkpoints"])
def test_a_folder_that_is_closed_in_mid_run(name, tmp_path, monkeypatch, whole):
    checkpoint = Context.checkpoint

    def close(self, score=None):
        if self.count == 13:
            (tmp_path / "r" / name).chmod(0o555)
        checkpoint(self, score)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", close)
        with pytest.raises(RunError, match="Permission denied"):
            spikecore.run(resolve(SMALL), out=tmp_path / "r")
    (tmp_path / "r" / name).chmod(0o755)
    assert is_whole(tmp_path / "r", whole)


@pytest.mark.parametrize("name", ["run.json", "config.toml", "metrics.jsonl", "checkpoint.json", "weights"])
def test_a_file_of_a_run_that_may_not_be_read(name, tmp_path, monkeypatch, whole, capsys):
    out = interrupted(tmp_path / "r", monkeypatch)
    last = max((out / "checkpoints").glob("checkpoint-????????"))
    inside = {"checkpoint.json": last / "checkpoint.json", "weights": max(last.glob("*.safetensors"))}
    path = inside.get(name, out / name)
    path.chmod(0)
    for command in (("report", out), ("eval", out), ("compare", out, out), ("run", "--resume", out, "--dry-run")):
        spike(*command)
    if name in ("run.json", "config.toml", "metrics.jsonl"):  # each checkpoint has what they hold
        assert is_whole(out, whole)
        assert f"{name} was damaged or edited: rebuilt from" in capsys.readouterr().err
        return
    with pytest.raises(SpikeError, match="Permission denied"):
        resume(out)
    path.chmod(0o644)
    assert is_whole(out, whole)


def test_a_configuration_that_may_not_be_read(tmp_path):
    (tmp_path / "c.toml").write_text("")
    (tmp_path / "c.toml").chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        resolve(tmp_path / "c.toml")


@root
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_run_of_another_user(mode, tmp_path, monkeypatch):
    out = interrupted(tmp_path / "r", monkeypatch)
    for folder in (out / "checkpoints", out):
        folder.chmod(mode)
        os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(SpikeError, match="Permission denied"):
        resume(out)
    spike("report", out)
    spike("compare", out, out)


def test_the_command_line_explains_what_was_refused(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        (tmp_path / "secret").read_text()

    (tmp_path / "secret").touch(mode=0)
    monkeypatch.setattr(cli, "spike", refuse)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"spike: {tmp_path}/secret: Permission denied: you need")


def test_data_where_nothing_may_be_written_or_read(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(DatasetError, match="may write"):
        make_directory(closed / "d", lambda aside: (aside / "a").write_text("x"))
    with pytest.raises(DatasetError, match="may write"):
        write_aside(closed / "f", lambda path: path.write_text("x"))
    assert not list(closed.iterdir())
