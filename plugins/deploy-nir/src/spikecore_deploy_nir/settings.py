"""How a file is read or written: profile, dt and dtype, which NIR does not say; the file's metadata hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from spikecore.documents import parse_json
from spikecore.errors import ConversionError
from spikecore_deploy_nir.graph import NirGraph
from spikecore_deploy_nir.profiles import DEFAULT_DT_S, PROFILES, Profile

KEY, FORM = "spikecore", 1
MOST_BYTES = 1 << 24
"""Of the metadata."""


@dataclass(frozen=True)
class Settings:
    """What is needed besides the graph.

    Args:
        profile: what a reader computes from a node.
        dt_s: of a step, in seconds.
        dtype: in which the reader computes, `float32` or `float64`.
        if_input: `rate`: IF and I integrate dt r x, as NIR's equation says; `step`: they add r x at every step.
        names: node → operator of the net.
        fires_at: nodes whose threshold was lowered, because the net fires at it and not only above it.
        flat: neurons that take their steps flattened in the net.
    """

    profile: Profile = PROFILES["euler"]
    dt_s: float = DEFAULT_DT_S
    dtype: str = "float32"
    if_input: str = "rate"
    names: Mapping[str, str] = field(default_factory=dict)
    fires_at: frozenset[str] = frozenset()
    flat: frozenset[str] = frozenset()

    @property
    def adds_input(self) -> bool:
        """Whether IF and I add r x, without dt."""
        return self.if_input == "step" or not self.profile.scales_input

    def to_metadata(self) -> dict[str, str]:
        """For the file: one text that is read back, and two for people."""
        values = {
            "form": FORM,
            "profile": self.profile.name,
            "dt": self.dt_s,
            "dtype": self.dtype,
            "if_input": self.if_input,
            "names": dict(self.names),
            "fires_at": sorted(self.fires_at),
            "flat": sorted(self.flat),
        }
        return {KEY: json.dumps(values), "profile": self.profile.name, "dt": repr(self.dt_s)}

    @classmethod
    def of(cls, graph: NirGraph, profile: str | None, dt_s: float | None, if_input: str | None) -> Settings:
        """Those of a file; what is given is used in the place of what it says, and of the defaults.

        Raises:
            ConversionError: its metadata are damaged, or of a later version.
        """
        text = graph.metadata.get(KEY)
        own = cls() if text is None else cls._parsed(text)
        return cls(
            own.profile if profile is None else PROFILES[profile],
            own.dt_s if dt_s is None else dt_s,
            own.dtype,
            own.if_input if if_input is None else if_input,
            own.names,
            own.fires_at,
            own.flat,
        )

    @classmethod
    def _parsed(cls, text: str) -> Settings:
        try:
            values = parse_json(text, most_bytes=MOST_BYTES)
            if values["form"] != FORM:
                raise ConversionError(
                    f"its metadata have the form {values['form']!r}, expected {FORM}: update this plugin"
                )
            dt_s, dtype, if_input = float(values["dt"]), str(values["dtype"]), str(values["if_input"])
            if not 0 < dt_s < float("inf") or dtype not in ("float32", "float64") or if_input not in ("rate", "step"):
                raise ValueError(f"dt {dt_s}, dtype {dtype!r}, if_input {if_input!r}")
            names = {str(node): str(name) for node, name in dict(values["names"]).items()}
            fires_at, flat = (frozenset(map(str, values[key])) for key in ("fires_at", "flat"))
            return cls(PROFILES[values["profile"]], dt_s, dtype, if_input, names, fires_at, flat)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConversionError(f"the metadata {KEY!r} of the file are damaged: {error}") from error
