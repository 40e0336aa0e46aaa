"""The density figures count what they say."""

from tests.tools.density import HEAD, Density, measure, measure_folder

TEXT = '''"""A docstring
of two lines."""

from typing import Any

# Why.
found = [each for each in "ab"]  # beside
LIMIT: int = 3  # type: ignore[x]
"""What it limits."""


def f(found: Any, other: dict[str, Any], *each: float) -> str:
    """Of one line."""
    total = sum(x for x in other)
    return (
        "a"
        if total
        else "b"
    )
'''


def test_everything_is_counted_once():
    assert measure(TEXT) == Density(
        lines=10,
        comprehensions=2,
        conditionals=1,
        comments=2,
        annotations=5,
        annotations_with_any=2,
        found=2,
        each=3,
    )


def test_figures_are_per_thousand_lines_of_code():
    row = Density(
        lines=2000, comprehensions=30, conditionals=10, comments=5, annotations=8, annotations_with_any=2
    ).row("x")
    assert row.split() == ["x", "2000", "15.0", "5.0", "2.5", "25.0", "%", "0", "0"]
    assert len(row) == len(HEAD)
    assert Density().row("nothing").split()[1:3] == ["0", "0.0"]


def test_a_folder_is_the_sum_of_its_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.py").write_text(TEXT)
    (tmp_path / "deep/b.py").write_text(TEXT)
    assert measure_folder(tmp_path).lines == 20
    assert measure_folder(tmp_path).each == 6
