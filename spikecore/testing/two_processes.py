"""Work in two or more processes that are connected by gloo, on the CPU, and what each of them answers.

They are forked, not started: a component that was registered in this process is there, and torch is loaded already.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spikecore.interfaces.processes import Shard
from spikecore.run.connected import Connected
from spikecore.testing.training import Recorder

HANG_S = 120.0
"""Nothing takes as long, even on a busy machine."""
GRACE_S = 10.0
"""After one has failed, for the other one to notice."""
_POLL_S = 0.01


class SharedRecorder(Recorder):
    """A recorder of one of several processes.

    Attributes:
        num_shards: how often the trainer asked for its part of a batch.
    """

    def __init__(self, group: Connected, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.rank, self.world_size = group.rank, group.world_size
        self.num_shards = 0
        self._group = group
        if self.rank:
            self.rank_generator = torch.Generator().manual_seed(seed + 1000 * self.rank)
            self.device_generator.manual_seed(seed + 1000 * self.rank + 1)

    def wrap(self, model: nn.Module) -> nn.Module:
        """See `Processes`, as for the next four."""
        return self._group.wrap(model)

    def fully_shard(self, model: nn.Module) -> nn.Module:
        """Parts of the net."""
        return self._group.fully_shard(model)

    def checkpoint(self, score: float | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        """As a run does, which saves whole nets."""
        if self.model is not None:
            self._group.make_whole(self.model)
        super().checkpoint(score, weights)

    def shard(self, batch: Any) -> Shard:
        """Counts."""
        self.num_shards += 1
        return super().shard(batch)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        return self._group.all_sum(tensor)

    def share_buffers(self, model: nn.Module) -> None:
        """Rank 0's buffers."""
        self._group.share_buffers(model)


def obstacle() -> str:
    """Why two processes cannot be connected here, or ""."""
    if not hasattr(os, "fork"):
        return "this system cannot fork a process"
    if not dist.is_available() or not dist.is_gloo_available():
        return "this torch has no gloo"
    return ""


def in_two_processes(work: Callable[[Connected], Any]) -> list[Any]:
    """`in_processes` with two."""
    return in_processes(work, 2)


def in_processes(work: Callable[[Connected], Any], world_size: int) -> list[Any]:
    """What `work` returns in each of several processes, by rank: plain data and tensors.

    Raises:
        AssertionError: one of them failed, with its traceback, or they hang.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, about threads: the fork uses none
            pids = {rank: _fork(work, rank, world_size, folder) for rank in range(world_size)}
        statuses = _wait(pids)
        for rank, status in statuses.items():
            error = folder / f"error-{rank}"
            assert not error.is_file(), f"process {rank} of {world_size} failed:\n{error.read_text()}"
            assert status == 0, (
                f"process {rank} of {world_size} did not come to its end within {HANG_S:g} s, or was killed"
            )
        return [torch.load(folder / f"answer-{rank}", weights_only=True) for rank in range(world_size)]


def _fork(work: Callable[[Connected], Any], rank: int, world_size: int, folder: Path) -> int:
    """The process id of a new process that does the work."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _work(work, rank, world_size, folder)
        status = 0
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
    finally:
        os._exit(status)  # nothing of the parent's is ended here: no fixture, no temporary directory


def _work(work: Callable[[Connected], Any], rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)  # a thread pool does not survive a fork
    os.environ["LOCAL_RANK"] = str(rank)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(folder / "store"), world_size)  # type: ignore[attr-defined]  # which it does export
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=HANG_S))
    answer = work(Connected(store, rank, world_size))
    torch.save(answer, folder / f"answer-{rank}")
    # One that leaves early may cut off the last answers to the other.
    store.set(f"done-{rank}", "")
    store.wait([f"done-{other}" for other in range(world_size)], timedelta(seconds=HANG_S))


def _wait(pids: dict[int, int]) -> dict[int, int]:
    """Rank → how it ended; those that hang are killed."""
    statuses: dict[int, int] = {}
    deadline = time.monotonic() + HANG_S
    while len(statuses) < len(pids):
        for rank, pid in pids.items():
            if rank in statuses:
                continue
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses[rank] = status
                if status:
                    deadline = min(deadline, time.monotonic() + GRACE_S)
            elif time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return statuses
