"""Several processes of one run, connected by torch.distributed: gloo between CPUs, NCCL between GPUs.

A process that fails writes why under one key of the store that `torchrun` keeps, and closes its connections. The others
then fail in the exchange that they are in, look at that key, and say what happened. A process that was killed leaves no
reason, but its connections close just the same.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from spikecore.errors import ConfigError, ProcessError, SpikeError, StopRun
from spikecore.run.processes import Group

if TYPE_CHECKING:
    from spikecore.run.sharded import Sharded

T = TypeVar("T")

TIMEOUT_S = 600.0
"""How long a process waits for the others, unless SPIKE_PROCESS_TIMEOUT_S says otherwise."""
TIMEOUT_VARIABLE = "SPIKE_PROCESS_TIMEOUT_S"
FAILURE, NUM_DONE, DIRECTORY = "failure", "done", "directory"
"""Keys of the store: the first failure; how many processes came to the end; the run directory."""
_times_joined = itertools.count()
"""A second run of the same processes has keys of its own."""
_REASON_WAIT_S = 2.0
"""A connection may break before the reason is in the store."""
_POLL_S = 0.02
_SILENT = ("timed out", "timeout")
_BROKEN = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", *_SILENT)
"""Words of torch.distributed's errors, all plain RuntimeErrors, when another process is gone."""


@dataclass(frozen=True)
class _Outcome:
    """How an action ended in one process: a result, or an error and how it is shown."""

    result: Any = None
    text: str = ""
    pickled: bytes = b""


class Connected(Group):
    """One of several processes.

    Args:
        store: shared by the processes.
        rank, world_size: see `Group`.
        lasting: a store that outlives these processes, when `torchrun` starts others in their place.
    """

    def __init__(self, store: Store, rank: int, world_size: int, lasting: Store | None = None) -> None:
        self.rank, self.world_size = rank, world_size
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self._store, self._lasting = store, lasting or store
        self._sharded: WeakKeyDictionary[nn.Module, Sharded] = WeakKeyDictionary()
        self._is_guarded = False
        """Training, or writing the last files: SIGTERM must not break in."""

    @classmethod
    @contextmanager
    def connected(cls) -> Iterator[Connected]:
        """Connect with the others; leave together with them.

        Raises:
            ProcessError: they cannot be reached, or one of them failed.
        """
        timeout = timedelta(seconds=_timeout_s())
        owns = not dist.is_initialized()
        try:
            shared, rank, world_size = next(rendezvous("env://", timeout=timeout))
            # Processes that `torchrun` starts in place of failed ones find what those left in its store.
            restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = PrefixStore(f"spikecore-{restarts}-{next(_times_joined)}", shared)
            if owns:
                with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
                backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
                dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        except (RuntimeError, ValueError) as error:
            address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
            raise ProcessError(
                f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not reach the others at {address}: "
                f"{_first_line(error)}; start all of them with one torchrun command"
            ) from error
        # torchrun's store has a prefix for each start of the workers; below it, all of them see the same.
        lasting = shared.underlying_store if isinstance(shared, PrefixStore) else shared
        group = cls(store, rank, world_size, PrefixStore("spikecore-run", lasting))
        try:
            with group._sigterm(), group._explaining():
                yield group
                group._leave()
        finally:
            # Without this, threads of gloo end a process that leaves with SIGABRT.
            if owns:
                dist.destroy_process_group()

    @property
    def num_restarts(self) -> int:
        """See `Group`."""
        return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

    def remember_run(self, directory: str) -> None:
        """See `Group`."""
        if self.is_first:
            self._lasting.set(DIRECTORY, directory)

    def remembered_run(self) -> str | None:
        """See `Group`."""
        return self._lasting.get(DIRECTORY).decode() if self._lasting.check([DIRECTORY]) else None

    def together(self, action: Callable[[], T]) -> T:
        """See `Group`."""
        result, error = None, None
        try:
            result = action()
        except Exception as problem:
            error = problem
        outcomes = self.gather(_outcome_of(None, error))
        self._raise_first(outcomes, error)
        return result  # type: ignore[return-value]  # no error, so there is a result

    def first(self, action: Callable[[], T]) -> T:
        """See `Group`."""
        result, error = None, None
        if self.is_first:
            try:
                result = action()
            except Exception as problem:
                error = problem
        outcomes = self.gather(_outcome_of(result, error))
        self._raise_first(outcomes, error)
        same: T = outcomes[0].result
        return same

    def gather(self, value: T) -> list[T]:
        """See `Group`."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """See `Group`."""
        shared = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return tuple(map(bool, shared.tolist()))

    def wrap(self, model: nn.Module) -> nn.Module:
        """See `Processes`."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        # `find_unused_parameters` treats a parameter that gets no gradient as one process does. It also keeps the
        # order of the exchange fixed from the first step on, so that a resumed run sums in the same order.
        return DistributedDataParallel(_WithSpare(model), find_unused_parameters=True)

    def fully_shard(self, model: nn.Module) -> nn.Module:
        """See `Processes`."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        from spikecore.run.sharded import Sharded  # imports FSDP, which takes a second

        try:
            sharded = self._sharded[model] = Sharded(model, self.world_size)
        except SpikeError as error:
            error.is_told = not self.is_first  # all processes raise it
            raise
        return sharded.net

    def make_whole(self, model: nn.Module) -> None:
        """See `Group`."""
        if model in self._sharded:
            self._sharded[model].gather()

    def all_sum(self, tensor: Tensor) -> Tensor:
        """See `Processes`."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def share_buffers(self, model: nn.Module) -> None:
        """See `Processes`."""
        self.make_whole(model)
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """See `Group`. When it is over, SIGTERM is ignored until the process leaves: the last files are written."""
        self._is_guarded = True
        with self._explaining():
            yield

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except StopRun:
            raise  # all processes end so, and none has failed
        except BaseException as error:
            # `torchrun` sends SIGTERM to those that are left, which must still say why they end.
            self._is_guarded = True
            explained = self._explain(error)
            if explained is error:
                self._publish(error)
                raise
            raise explained from error

    def _explain(self, error: BaseException) -> BaseException:
        """The error itself where it is this process's own; else what happened to another one."""
        if isinstance(error, SpikeError | SystemExit):
            return error
        is_broken = _is_broken(error)
        failure = self._failure(_REASON_WAIT_S if is_broken else 0.0)
        if failure is not None and failure["rank"] != self.rank:
            if not is_broken and not isinstance(error, KeyboardInterrupt):
                return error  # two failed at once, each for its own reason
            if failure["is_interrupt"]:
                return KeyboardInterrupt()
            return ProcessError(
                f"process {failure['rank']} of {self.world_size} failed: {failure['text']}\n"
                f"Once that is fixed, resume from the last checkpoint with `{self.resume_command}`"
            )
        if not is_broken:
            return error
        return self._lost(error)

    def _lost(self, error: BaseException) -> ProcessError:
        """Another process is gone, and gave no reason."""
        who = f"process {1 - self.rank}" if self.world_size == 2 else f"one of the {self.world_size - 1} others"
        text = _first_line(error)
        if any(word in text.lower() for word in _SILENT):
            what = f"did not answer within {_timeout_s():g} s ({TIMEOUT_VARIABLE} changes that)"
        else:
            what = "is gone without giving a reason: it was killed, perhaps for want of memory, or crashed"
        return ProcessError(
            f"process {self.rank} of {self.world_size} cannot go on: {who} {what}. Resume from the last checkpoint "
            f"with `{self.resume_command}` (torch.distributed says: {text})"
        )

    def _publish(self, error: BaseException) -> None:
        """Tell the others why this process ends; the first to do so is believed."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        failure = {"rank": self.rank, "is_interrupt": isinstance(error, KeyboardInterrupt), "text": text}
        with suppress(RuntimeError):  # the store is gone when `torchrun` is
            self._store.compare_set(FAILURE, "", json.dumps(failure))

    def _failure(self, wait_s: float) -> dict[str, Any] | None:
        """What was published; waits for it a little."""
        deadline = time.monotonic() + wait_s
        with suppress(RuntimeError):
            while True:
                if self._store.check([FAILURE]):
                    failure: dict[str, Any] = json.loads(self._store.get(FAILURE))
                    return failure
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL_S)
        return None

    def _raise_first(self, outcomes: list[_Outcome], own: Exception | None) -> None:
        """Raise in every process the error of the first one that has any; that one shows it."""
        failed = [rank for rank, outcome in enumerate(outcomes) if outcome.text]
        if not failed:
            return
        teller = failed[0]
        if self.rank == teller:
            assert own is not None
            if len(failed) < self.world_size and isinstance(own, SpikeError) and teller != 0:
                raise _name_process(own, teller, self.world_size)
            raise own
        raise _rebuild_error(outcomes[teller], teller, self.world_size) from own

    def _leave(self) -> None:
        """Wait until all have come to the end: one that closes its connections early may cut off the last answers."""
        self._is_guarded = False
        deadline = time.monotonic() + _timeout_s()
        try:
            num_done = self._store.add(NUM_DONE, 1)
            while num_done < self.world_size:
                failure = self._failure(0.0)
                if failure is not None and failure["is_interrupt"]:
                    raise KeyboardInterrupt
                if failure is not None:
                    raise ProcessError(f"process {failure['rank']} of {self.world_size} failed: {failure['text']}")
                if time.monotonic() > deadline:
                    raise ProcessError(f"another process did not come to the end within {_timeout_s():g} s")
                time.sleep(_POLL_S)
                num_done = self._store.add(NUM_DONE, 0)
        except RuntimeError:
            return  # the store went with its keeper, who leaves last

    @contextmanager
    def _sigterm(self) -> Iterator[None]:
        """SIGTERM ends the run as Ctrl-C does; `torchrun` sends it when another process has failed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def terminate(number: int, frame: FrameType | None) -> None:
            self.is_terminated = True
            if not self._is_guarded:
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, terminate)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class _WithSpare(nn.Module):
    """A net and one parameter that it does not use: torch warns on every start when all of them are used."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        some = next(net.parameters())
        self.spare = nn.Parameter(torch.zeros(1, dtype=some.dtype, device=some.device))

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.net(*inputs, **options)


def _outcome_of(result: Any, error: Exception | None) -> _Outcome:
    if error is None:
        return _Outcome(result)
    pickled = b""
    if isinstance(error, SpikeError):
        with suppress(Exception):  # an exception whose constructor takes other arguments is reported as a ProcessError
            pickled = pickle.dumps(type(error)(*error.args))
    return _Outcome(None, f"{type(error).__name__}: {error}", pickled)


def _rebuild_error(outcome: _Outcome, rank: int, world_size: int) -> SpikeError:
    """The error of another process, which shows it."""
    error: SpikeError = ProcessError(f"process {rank} of {world_size} failed: {outcome.text}")
    if outcome.pickled:
        with suppress(Exception):
            error = pickle.loads(outcome.pickled)
    error.is_told = True
    return error


def _name_process(error: SpikeError, rank: int, world_size: int) -> SpikeError:
    """The same error, saying in which process it came up."""
    try:
        same = type(error)(f"process {rank} of {world_size}: {error}")
    except Exception:
        return error
    same.__cause__ = error
    return same


def _is_broken(error: BaseException) -> bool:
    """Whether torch.distributed says that another process is gone, or does not answer."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _BROKEN)


def _timeout_s() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{TIMEOUT_VARIABLE}={text}: must be a number of seconds above 0, such as 600")
    return seconds


def _first_line(error: BaseException) -> str:
    """What torch.distributed says, without the place in its source and the advice to read logs."""
    text = re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", str(error).strip()).partition(". This is typically")[0]
    return text.splitlines()[0] if text else type(error).__name__
