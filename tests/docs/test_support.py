"""The support matrix is that of the plugins in the repository."""

from tests.suites.places import plugins
from tests.tools import support


def test_the_matrix_is_up_to_date():
    assert support.FILE.read_text(encoding="utf-8") == support.generated(), "run `make support`"


def test_every_plugin_has_a_row_with_components():
    lines = [line.split("|") for line in support.generated().splitlines() if line.startswith("| [")]
    assert len(lines) == len(plugins()) >= 15
    assert all(int(line[5]) >= 1 for line in lines)
