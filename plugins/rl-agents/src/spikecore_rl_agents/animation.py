"""A greedy episode as pictures: in the report, and as `episode.gif` in the run directory."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from spikecore.errors import RunError
from spikecore.files import write_file
from spikecore.interfaces import Animation
from spikecore_rl_agents.environments import EnvironmentConfig, make_environment
from spikecore_rl_agents.evaluation import Decider
from spikecore_rl_agents.spaces import Spaces

FILE = "episode.gif"
MAX_FRAMES = 120
WIDTH = 160
FRAMES_PER_S = 20.0
DRIVER = "SDL_VIDEODRIVER"
Picture: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
_latest: WeakKeyDictionary[nn.Module, Animation] = WeakKeyDictionary()
"""Net → the episode shown last, for the file that the hook writes: a trainer owns no file."""


def film(config: EnvironmentConfig, spaces: Spaces, decider: Decider, seed: int, net: nn.Module) -> Animation | None:
    """A greedy episode from a seed; None, with a warning, where the environment cannot be drawn here."""
    with _without_display():
        try:
            return _film(config, spaces, decider, seed, net)
        except Exception as error:  # whatever a renderer raises: a run that is trained is not lost for a picture
            warnings.warn(f"no picture of an episode: {config.name!r} cannot be drawn here: {error}", stacklevel=2)
            return None


def _film(config: EnvironmentConfig, spaces: Spaces, decider: Decider, seed: int, net: nn.Module) -> Animation:
    environment = make_environment(config, training=False, render_mode="rgb_array")
    try:
        raw, _ = environment.reset(seed=seed)
        frames = [_picture(environment)]
        is_over, total = False, 0.0
        while not is_over:
            observations = decider.prepare(spaces.observe(np.asarray(raw)[None]))
            with torch.no_grad():
                action = spaces.act(decider(observations))[0]
            raw, reward, terminated, truncated, _ = environment.step(action)
            total += float(reward)
            is_over = terminated or truncated
            frames.append(_picture(environment))
    finally:
        environment.close()
    picked = _spread(frames)
    every = (len(frames) - 1) / max(len(picked) - 1, 1)
    caption = f"Return {total:g} in {len(frames) - 1} steps, from seed {seed}; a frame every {every:.3g} steps."
    shown = Animation(picked, frames_per_s=FRAMES_PER_S, caption=caption)
    _latest[net] = shown
    return shown


def write_gif(directory: Path, net: nn.Module) -> None:
    """Write the episode of this net, where there is one."""
    shown = _latest.get(net)
    if shown is not None:
        write_file(directory / FILE, gif(shown.frames, shown.frames_per_s))


def gif(frames: Tensor, frames_per_s: float) -> bytes:
    """The file: frames `[N, 3, H, W]`, uint8; over and over."""
    from PIL import Image

    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    file = io.BytesIO()
    duration_ms = round(1000 / frames_per_s)
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=duration_ms, loop=0)
    return file.getvalue()


@contextmanager
def _without_display() -> Iterator[None]:
    """Pictures go to memory, so SDL is not to look for a display; where there is none it would complain."""
    before = os.environ.get(DRIVER)
    os.environ.setdefault(DRIVER, "dummy")
    try:
        yield
    finally:
        if before is None:
            del os.environ[DRIVER]


def _picture(environment: gymnasium.Env[Any, Any]) -> Picture:
    drawn: Any = environment.render()
    if not isinstance(drawn, np.ndarray) or drawn.ndim != 3 or drawn.shape[-1] != 3:
        form = f"an array {drawn.shape}" if isinstance(drawn, np.ndarray) else type(drawn).__name__
        raise RunError(f"its render() must give a picture [H, W, 3], got {form}")
    return drawn


def _spread(frames: list[Picture]) -> Tensor:
    """At most `MAX_FRAMES` of them, `[N, 3, H, W]`, made smaller by averaging."""
    index = np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().astype(int)
    pictures = torch.from_numpy(np.stack([frames[i] for i in index])).permute(0, 3, 1, 2)
    factor = max(1, round(pictures.shape[-1] / WIDTH))
    return torch.nn.functional.avg_pool2d(pictures.float(), factor).round().byte()
