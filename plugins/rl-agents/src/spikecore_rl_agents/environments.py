"""The table `[environment]`: which environment an agent learns in, and how it is made.

gymnasium's registry names environments; `MODULE:ID` imports a module first that registers its own. Every fault of the
table, and everything that an agent cannot use, is an error before the first step.

This module is imported by every process that holds an environment, so it imports no torch.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium
from gymnasium import error as gym_errors

from spikecore.errors import ConfigError, PluginUnavailable
from spikecore.interfaces import Range
from spikecore.workers import begin_worker

ATARI_PREFIX = "ALE/"
EXTRAS = {"ale_py": "atari", "cv2": "atari", "mujoco": "mujoco", "Box2D": "box2d", "pygame": "render"}
"""Module that an environment needs → the extra of this plugin that installs it."""
ATARI_STEPS = 27_000
"""30 minutes of play: 108 000 frames, 4 of them a step."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig:
    """
    Args:
        name: id in gymnasium's registry, or `MODULE:ID` for one that a module of yours registers.
        num_envs: environments that are stepped together.
        processes: each environment in a process of its own; worth it where a step costs more than about 0.2 ms.
        max_episode_steps: an episode is cut here (truncated); 0 for the environment's own limit.
        options: keywords for `gymnasium.make`, as `name=value` with Python literals: `["continuous=True"]`.
        reward_scale: rewards are multiplied by it for training; returns are reported without it.
        normalize: observations are shifted and scaled to mean 0 and variance 1, by all that training has seen: neurons
            with a threshold near 1 are silent for smaller ones. Pictures and choices stay as they are.
        deterministic: the same seed and actions give the same episode to the last bit. Where that is not so, say false:
            the run then cannot be resumed.
        timeout_s: with `processes`, seconds after which an environment that does not answer is given up.
        frame_skip: Atari: frames that an action is repeated for.
        frame_stack: Atari: frames that are one observation.
        life_is_episode: Atari: in training, a lost life ends the episode.
        clip_rewards: Atari: in training, rewards are replaced by their signs.
    """

    name: str = "CartPole-v1"
    num_envs: Annotated[int, Range(ge=1)] = 4
    processes: bool = False
    max_episode_steps: Annotated[int, Range(ge=0)] = 0
    options: tuple[str, ...] = ()
    reward_scale: Annotated[float, Range(gt=0.0, lt=math.inf)] = 1.0
    normalize: bool = True
    deterministic: bool = True
    timeout_s: Annotated[float, Range(gt=0.0, lt=math.inf)] = 120.0
    frame_skip: Annotated[int, Range(ge=1)] = 4
    frame_stack: Annotated[int, Range(ge=1)] = 4
    life_is_episode: bool = False
    clip_rewards: bool = True

    @property
    def is_atari(self) -> bool:
        """Whether the Atari wrappers apply."""
        return self.name.startswith(ATARI_PREFIX)


def limit_of(config: EnvironmentConfig, environment: gymnasium.Env[Any, Any]) -> int:
    """Steps after which an episode is cut; 0 where there is no limit."""
    own = environment.spec.max_episode_steps if environment.spec is not None else None
    return config.max_episode_steps or own or (ATARI_STEPS if config.is_atari else 0)


def make_environment(
    config: EnvironmentConfig, *, training: bool, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """One environment.

    Args:
        config: which.
        training: with what makes learning easier but changes the task (Atari's clipped rewards and single lives).
        render_mode: of gymnasium.

    Raises:
        ConfigError: there is no such environment, or an option is wrong.
        PluginUnavailable: a package that it needs is not installed.
    """
    if config.is_atari:
        _register_atari()
    keywords = _keywords(config.options)
    if render_mode is not None:
        keywords["render_mode"] = render_mode
    if config.is_atari:
        keywords = {"frameskip": 1, "max_num_frames_per_episode": 0, **keywords}
    limit = config.max_episode_steps or (ATARI_STEPS if config.is_atari else None)
    try:
        environment = gymnasium.make(config.name, max_episode_steps=None if config.is_atari else limit, **keywords)
    except gym_errors.DependencyNotInstalled as error:
        raise _missing(config.name, error) from error
    except (gym_errors.UnregisteredEnv, gym_errors.NameNotFound, ModuleNotFoundError) as error:
        raise _unknown(config.name, error) from error
    except gym_errors.Error as error:
        raise ConfigError(f"environment.name: {config.name!r} cannot be made: {error}") from error
    except TypeError as error:  # a keyword that its constructor does not take
        raise ConfigError(f"environment.options: {config.name!r} does not take {keywords}: {error}") from error
    except Exception as error:  # whatever its module or its constructor raises
        raise ConfigError(
            f"environment.name: {config.name!r} cannot be made: {type(error).__name__}: {error}"
        ) from error
    if config.is_atari:
        from spikecore_rl_agents.atari import wrap_atari

        environment = wrap_atari(environment, config, training=training, max_steps=limit or ATARI_STEPS)
    return environment


def makers(config: EnvironmentConfig, num_envs: int, *, training: bool) -> list[Callable[[], gymnasium.Env[Any, Any]]]:
    """Functions that make the environments, here or in a process of its own."""
    return [functools.partial(_make, config, training, os.getpid())] * num_envs


def _make(config: EnvironmentConfig, training: bool, starter: int) -> gymnasium.Env[Any, Any]:
    if os.getpid() != starter:
        begin_worker()
    return make_environment(config, training=training)


def _keywords(options: tuple[str, ...]) -> dict[str, Any]:
    keywords = {}
    for text in options:
        name, sign, value = text.partition("=")
        try:
            keywords[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            sign = ""
        if not sign or not name.strip().isidentifier():
            raise ConfigError(
                f"environment.options: must be 'name=value' with a Python literal, got {text!r}; "
                "text goes in quotes: \"mode='hard'\""
            )
    return keywords


def _register_atari() -> None:
    for module in ("ale_py", "cv2"):
        try:
            imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise PluginUnavailable(
                f"Atari environments need the module {module!r}", "pip install 'spikecore-rl-agents[atari]'"
            ) from error
        if module == "ale_py":
            gymnasium.register_envs(imported)


def _missing(name: str, error: Exception) -> PluginUnavailable:
    needed = next((extra for module, extra in EXTRAS.items() if module.lower() in str(error).lower()), "")
    hint = f"pip install 'spikecore-rl-agents[{needed}]'" if needed else "install what it names"
    return PluginUnavailable(f"environment {name!r} needs a package that is not installed: {error}", hint)


def _unknown(name: str, error: Exception) -> ConfigError:
    known: Mapping[str, Any] = gymnasium.registry
    if isinstance(error, ModuleNotFoundError) and ":" in name:
        module = name.partition(":")[0]
        missing = getattr(error.__cause__, "name", None) or module  # gymnasium raises another error from it
        if not f"{module}.".startswith(f"{missing}."):
            return ConfigError(f"environment.name: {name!r} needs the module {missing!r}, which is not installed")
        return ConfigError(
            f"environment.name: {name!r} asks for the module {module!r}, which cannot be found: install it, or put its "
            "directory into the environment variable PYTHONPATH"
        )
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    shown = f"the nearest names are {', '.join(near)}" if near else f"there are {len(known)}, such as CartPole-v1"
    return ConfigError(
        f"environment.name: gymnasium knows no {name!r}; {shown}. One that a module of yours registers is "
        "'MODULE:ID'; Atari's begin with 'ALE/' and need spikecore-rl-agents[atari]"
    )
