"""Which plugins are disabled, by flag, environment or config. Deny beats allow; core cannot be disabled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from spikecore.errors import PluginError
from spikecore.registry.metadata import normalise

DENY_VARIABLE = "SPIKE_DISABLE_PLUGINS"
ALLOW_VARIABLE = "SPIKE_PLUGINS"
FLAG = "--no-plugin"
CONFIG = "[plugins] disable"
ALL = "all"
ESSENTIAL = ("core", "spikecore")


@dataclass(frozen=True)
class Blocking:
    """The blocked plugins.

    Args:
        denied: plugin id or distribution name → where it was disabled; the key `all` blocks every plugin.
        allowed: if not None, every other plugin is blocked.
    """

    denied: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] | None = None

    @classmethod
    def from_environment(cls, flags: Iterable[str] = (), config: Iterable[str] = ()) -> Blocking:
        """Collect `--no-plugin` flags, the environment variables and `[plugins] disable` of a config."""
        allow = os.environ.get(ALLOW_VARIABLE)
        blocking = cls({}, None if allow is None else frozenset(map(normalise, _names(allow))))
        blocking = blocking.with_denied(config, CONFIG)
        blocking = blocking.with_denied(_names(os.environ.get(DENY_VARIABLE, "")), DENY_VARIABLE)
        return blocking.with_denied(flags, FLAG)

    def with_denied(self, names: Iterable[str], by: str) -> Blocking:
        """A copy that blocks `names` as well.

        Args:
            names: plugin ids or distribution names.
            by: the flag, variable or table that disables them, for messages.

        Raises:
            PluginError: core is among them.
        """
        added = {normalise(name): by for name in names}
        if essential := [name for name in added if name in ESSENTIAL]:
            raise PluginError(f"{by}: {essential[0]!r} holds the reference components and cannot be blocked")
        return replace(self, denied={**self.denied, **added})

    def reason(self, plugin_id: str, distribution: str) -> str:
        """Why this plugin is blocked, or "" if it is not."""
        names = {normalise(plugin_id), normalise(distribution)}
        for name in (*sorted(names), ALL):
            if name in self.denied:
                return f"switched off by {self.denied[name]}"
        if self.allowed is not None and not self.allowed & {*names, ALL}:
            return f"not in the allow-list {ALLOW_VARIABLE}"
        return ""

    def environment(self) -> dict[str, str]:
        """The environment variables that make a subprocess block the same plugins."""
        variables = {DENY_VARIABLE: ",".join(self.denied)}
        if self.allowed is not None:
            variables[ALLOW_VARIABLE] = ",".join(sorted(self.allowed))
        return variables


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
