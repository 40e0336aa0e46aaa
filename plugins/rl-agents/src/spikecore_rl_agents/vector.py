"""Several environments stepped together, each episode from a seed of its own.

gymnasium's automatic reset is off: an environment whose episode is over is reset at once, with a seed drawn from the
run's generator, and the last observation of the old episode is returned beside the first one of the new. So an episode
is told by its seed and its actions, and a resumed run brings its environments back by playing these again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Generator, Tensor

from spikecore.errors import RunError, SpikeError
from spikecore.workers import starting_workers
from spikecore_rl_agents.environments import EnvironmentConfig, makers
from spikecore_rl_agents.spaces import Spaces

MAX_SEED = 2**31 - 1
KILL_S = 5.0
ALIVE_S = 0.2
"""How often processes that start are looked at: do they live?"""
MAX_REWARD = 1e18
"""Losses hold squares, and float32 ends at 3.4e38."""


@dataclass(frozen=True)
class Moves:
    """What a step of all environments led to.

    Args:
        followed: observations after the step `[N, *shape]`, of the same episodes.
        rewards: `[N]`, float32.
        terminated: bool `[N]`: the environment is over.
        truncated: bool `[N]`: it was cut, and not over.
        returns: of the episodes that ended in this step, undiscounted and unscaled.
        lengths: their numbers of steps.
    """

    followed: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def over(self) -> Tensor:
        """bool `[N]`: the episode has ended, one way or the other."""
        return self.terminated | self.truncated


class Environments:
    """The environments of an agent. Close them, whatever happens: `with Environments(...) as environments`.

    Args:
        config: which, and whether in processes.
        spaces: theirs.
        num_envs: how many.
        training: see `make_environment`.

    Attributes:
        observations: what the agent sees now, `[N, *shape]`.
        num_steps: taken in all environments together.
    """

    def __init__(self, config: EnvironmentConfig, spaces: Spaces, num_envs: int, *, training: bool) -> None:
        self._config, self._spaces, self._num_envs = config, spaces, num_envs
        self._envs = _vector(config, num_envs, training=training)
        self.observations = torch.zeros(0)
        self.num_steps = 0
        self.seeds = [0] * num_envs
        self._actions: list[list[Tensor]] = [[] for _ in range(num_envs)]
        """Of the running episodes; kept only where they may have to be played again."""
        self._keeps_actions = training and config.deterministic
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._is_closed = False

    def __enter__(self) -> Environments:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(by_force=kind is not None)

    def begin(self, seeds: list[int]) -> None:
        """Start a new episode everywhere."""
        self._reset(np.ones(self._num_envs, dtype=bool), seeds)

    def step(self, actions: Tensor, next_seed: Callable[[], int]) -> Moves:
        """Step all environments, and start a new episode where one has ended.

        Args:
            actions: `[N]` or `[N, num_actions]`, as the policy gives them.
            next_seed: gives the seeds of the new episodes, in the order of the environments.

        Raises:
            RunError: an environment raised, died, did not answer, or gave a number that is not finite.
        """
        raw, rewards, terminated, truncated = self._step(actions)
        followed = self._observed(raw)
        truncated = truncated & ~terminated
        self._returns += rewards
        self._lengths += 1
        over = terminated | truncated
        ended = np.flatnonzero(over)
        returns = tuple(self._returns[ended].tolist())
        lengths = tuple(self._lengths[ended].tolist())
        if self._keeps_actions:
            for episode, action in zip(self._actions, actions.cpu(), strict=True):
                episode.append(action)
        self.observations = followed
        if len(ended):
            seeds = list(self.seeds)
            for index in ended:
                seeds[index] = next_seed()
            self._reset(over, seeds)
        self.num_steps += self._num_envs
        scaled = torch.from_numpy(rewards * self._config.reward_scale).float()
        ends = torch.from_numpy(terminated.copy()), torch.from_numpy(truncated)
        return Moves(followed, scaled, *ends, returns, lengths)

    def state_dict(self) -> dict[str, Any]:
        """The running episodes: seeds, actions, returns so far; and what the agent sees, to compare."""
        actions = [torch.stack(episode) if episode else torch.zeros(0) for episode in self._actions]
        return {
            "seeds": list(self.seeds),
            "actions": actions,
            "lengths": [int(length) for length in self._lengths],
            "returns": [float(value) for value in self._returns],
            "observations": self.observations,
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play the running episodes again, up to where they were.

        Raises:
            RunError: they do not come out the same, so the environment is not deterministic.
        """
        lengths = [int(length) for length in state["lengths"]]
        self.begin(list(state["seeds"]))
        # All are stepped together, so the shorter episodes start later; until then they are held at their beginning.
        for left in range(max(lengths), 0, -1):
            playing = [length >= left for length in lengths]
            chosen = [
                actions[length - left] if is_playing else _any_action(state["actions"])
                for actions, length, is_playing in zip(state["actions"], lengths, playing, strict=True)
            ]
            raw, *_ = self._step(torch.stack(chosen))
            self.observations = self._observed(raw)
            waiting = ~np.array(playing)
            if waiting.any():
                self._reset(waiting, list(state["seeds"]))
        if not torch.equal(self.observations, state["observations"]):
            raise RunError(
                f"environment {self._config.name!r} did not come back to where it was from the same seeds and actions, "
                "so this run cannot be resumed: set environment.deterministic = false in a new run"
            )
        self._lengths = np.array(lengths, dtype=np.int64)
        self._returns = np.array(state["returns"], dtype=np.float64)
        # Copies: the state may be loaded into another run as well.
        self._actions = [list(actions.unbind(0)) if len(actions) else [] for actions in state["actions"]]
        self.num_steps = int(state["num_steps"])

    def close(self, *, by_force: bool = False) -> None:
        """Release the environments; by force after a failure, when a process may not answer any more."""
        if self._is_closed:
            return
        self._is_closed = True
        if isinstance(self._envs, AsyncVectorEnv):
            _end_processes(self._envs, by_force=by_force)
        else:
            self._envs.close()

    def _step(self, actions: Tensor) -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        taken = self._spaces.act(actions)
        with _Telling(self._config, "step", self._lengths):
            if isinstance(self._envs, AsyncVectorEnv):
                self._envs.step_async(taken)
                raw, rewards, terminated, truncated, _ = self._envs.step_wait(self._config.timeout_s)
            else:
                raw, rewards, terminated, truncated, _ = self._envs.step(taken)
        if not np.isfinite(rewards).all():
            index = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise self._not_finite(f"the reward {rewards[index]}", index)
        if (np.abs(rewards * self._config.reward_scale) > MAX_REWARD).any():
            raise RunError(
                f"environment {self._config.name!r} returned a reward of size {np.abs(rewards).max():g}, which times "
                f"environment.reward_scale = {self._config.reward_scale:g} is above {MAX_REWARD:g}, and its square is "
                "beyond float32: choose a smaller reward_scale"
            )
        return raw, np.array(rewards), np.array(terminated), np.array(truncated)

    def _reset(self, which: np.ndarray[Any, Any], seeds: list[int]) -> None:
        with _Telling(self._config, "reset", self._lengths):
            # gymnasium takes the mask out of the options that it is given.
            raw, _ = self._reset_raw(which, [int(seed) for seed in seeds])
        self.seeds = list(seeds)
        self._returns[which], self._lengths[which] = 0.0, 0
        for index in np.flatnonzero(which):
            self._actions[index] = []
        self.observations = self._observed(raw)

    def _reset_raw(self, which: np.ndarray[Any, Any], seeds: list[int]) -> Any:
        options = {"reset_mask": which.copy()}
        if isinstance(self._envs, AsyncVectorEnv):
            self._envs.reset_async(seed=seeds, options=options)
            return self._envs.reset_wait(self._config.timeout_s)
        return self._envs.reset(seed=seeds, options=options)

    def _observed(self, raw: Any) -> Tensor:
        observations = self._spaces.observe(raw)
        if observations.is_floating_point() and not bool(observations.isfinite().all()):
            bad = ~observations.isfinite().flatten(1).all(1)
            raise self._not_finite("an observation with a number that is not finite", int(bad.nonzero()[0]))
        return observations

    def _not_finite(self, what: str, index: int) -> RunError:
        return RunError(
            f"environment {self._config.name!r} returned {what}: number {index}, at step {self._lengths[index] + 1} of "
            f"the episode that began with seed {self.seeds[index]}; look for a division by zero or an overflow in it"
        )


class _Telling:
    """Turns what an environment raises into an error that says which, and when."""

    def __init__(self, config: EnvironmentConfig, call: str, lengths: np.ndarray[Any, Any]) -> None:
        self._config, self._call, self._lengths = config, call, lengths

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, SpikeError) or not isinstance(error, Exception):
            return
        name, call = self._config.name, self._call
        if isinstance(error, multiprocessing.TimeoutError):
            raise RunError(
                f"environment {name!r} did not answer {call}() within environment.timeout_s = "
                f"{self._config.timeout_s:g} s: raise it, or look for what it waits for"
            ) from error
        if isinstance(error, _EndedEarly) or _is_of_a_pipe(error):
            if call == "__init__":
                raise RunError(
                    f"environment {name!r}: a process of its own ended while it started; see above what it says of it; "
                    "a script that starts processes does so under if __name__ == '__main__':, as they import it"
                ) from error
            raise RunError(
                f"environment {name!r}: one of its processes died during {call}() ({type(error).__name__}); was it "
                "killed for want of memory? The others were ended; resume the run from its last checkpoint"
            ) from error
        longest = int(self._lengths.max()) + 1
        raise RunError(
            f"environment {name!r} raised {type(error).__name__} in {call}(), at step {longest} of its longest running "
            f"episode: {error}"
        ) from error


def _is_of_a_pipe(error: BaseException) -> bool:
    """Whether it was raised where processes talk to each other, and not by an environment, which may read files too."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith("multiprocessing.")


class _EndedEarly(Exception):
    """A process has ended before it said that its environment is made."""


class _Processes(AsyncVectorEnv):
    """gymnasium's, whose processes are not killed by a signal while they start, and are ended whatever they do.

    A process that is forked holds the locks of torch's threads, and the pipes of its siblings; one that is spawned
    holds neither, and ends when this one does.
    """

    def __init__(self, functions: Sequence[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        self._starting = contextlib.ExitStack()
        with self._starting:
            super().__init__(functions, copy=False, context="spawn", autoreset_mode=AutoresetMode.DISABLED)

    @property
    def processes(self) -> list[Any]:  # type: ignore[override]
        return self._processes

    @processes.setter
    def processes(self, processes: list[Any]) -> None:
        # Before the first one starts, and after one environment was made here, which may take long.
        self._processes = processes
        self._starting.enter_context(starting_workers())

    def _check_spaces(self) -> None:
        # All have started; that their environments are made may take for ever, and then Ctrl-C must end it.
        self._starting.close()
        self._await_environments()
        super()._check_spaces()

    def _await_environments(self) -> None:
        """Fails with the first process that ends: gymnasium asks one after another, and would wait for a slow one."""
        for pipe in self.parent_pipes:
            pipe.send(("_call", ("has_wrapper_attr", ("step",), {})))
        waiting: list[Any] = list(self.parent_pipes)
        while waiting:
            for pipe in connection.wait(waiting, ALIVE_S):
                pipe.recv()
                waiting.remove(pipe)
            # What a process forked holds its pipe open when it has ended.
            if not all(process.is_alive() for process in self._processes):
                raise _EndedEarly

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        if terminate:
            for process in self._processes:
                process.kill()
        super().close_extras(timeout, terminate)


def _vector(config: EnvironmentConfig, num_envs: int, *, training: bool) -> VectorEnv[Any, Any, Any]:
    functions = makers(config, num_envs, training=training)
    if not config.processes:
        return SyncVectorEnv(functions, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    with _Telling(config, "__init__", np.zeros(1)):
        return _Processes(functions)


def _end_processes(envs: AsyncVectorEnv, *, by_force: bool) -> None:
    # gymnasium's own close waits for answers, and fails with the first pipe that is broken.
    if not by_force:
        try:
            envs.close(timeout=KILL_S)
        except Exception:  # a process is gone: its siblings are ended below
            by_force = True
    if not by_force:
        return
    for process in envs.processes:
        if process.is_alive():
            process.kill()
    for process in envs.processes:
        process.join(KILL_S)
    for pipe in envs.parent_pipes:
        if pipe is not None:
            pipe.close()
    envs.closed = True


def _any_action(episodes: list[Tensor]) -> Tensor:
    """An action that the environments take: the first of any episode."""
    return next(actions[0] for actions in episodes if len(actions))


def seed_source(generator: Generator) -> Callable[[], int]:
    """Seeds of episodes, drawn one by one."""
    return lambda: int(torch.randint(MAX_SEED, (), generator=generator))


def fixed_seeds(seed: int, stream: int, count: int) -> list[int]:
    """Seeds of the episodes of an evaluation: the same every time, others for every stream."""
    return [int(word) % MAX_SEED for word in np.random.SeedSequence([seed, stream]).generate_state(count, np.uint64)]
