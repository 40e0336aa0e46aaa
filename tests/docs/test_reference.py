"""The reference says of the language what the table of operators says."""

from pathlib import Path

import spikecore
from spikecore.dynamics import OPS
from spikecore.dynamics.vjp import RULES

ROOT = Path(spikecore.__file__).parents[1]


def test_every_operator_stands_in_the_reference():
    text = (ROOT / "docs/reference/neuron-language.md").read_text(encoding="utf-8")
    for name, op in OPS.items():
        line = f"| `{name}` | {op.text.replace('|', chr(92) + '|')} | {'yes' if name in RULES else 'none'} |"
        assert line in text, f"expected the line {line}"
