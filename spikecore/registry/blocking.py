"""Which plugins are switched off: flag, environment, config; deny beats allow; core cannot be blocked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DENY_VARIABLE = "SPIKE_DISABLE_PLUGINS"
ALLOW_VARIABLE = "SPIKE_PLUGINS"
ALL = "all"


@dataclass(frozen=True)
class Blocking:
    """The blocked plugins.

    Args:
        denied: plugin id or distribution name → where it was switched off; the key `all` blocks every plugin.
        allowed: when given, only these run.
    """

    denied: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] | None = None

    @classmethod
    def from_environment(cls, flags: Iterable[str] = (), config: Iterable[str] = ()) -> Blocking:
        """Collect `--no-plugin` flags, the environment variables and `[plugins] disable` of a config."""
        denied = dict.fromkeys(config, "[plugins] disable")
        denied |= dict.fromkeys(_names(os.environ.get(DENY_VARIABLE, "")), DENY_VARIABLE)
        denied |= dict.fromkeys(flags, "--no-plugin")
        allow = os.environ.get(ALLOW_VARIABLE)
        return cls(denied, None if allow is None else frozenset(_names(allow)))

    def reason(self, plugin_id: str, distribution: str) -> str:
        """Why this plugin is blocked, or "" when it is not."""
        for name in (plugin_id, distribution, ALL):
            if name in self.denied:
                return f"switched off by {self.denied[name]}"
        if self.allowed is not None and not self.allowed & {plugin_id, distribution}:
            return f"not in the allow-list {ALLOW_VARIABLE}"
        return ""


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
