"""Texts parsed a piece at a time give what a reader that goes line by line gives, exactly, or are left to it."""

import io
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikecore_datasets_dvs import read_events
from spikecore_datasets_dvs.formats import digits
from spikecore_datasets_dvs.formats.digits import Layout, regular_columns

ORDER = {"t": 1, "x": 0, "y": 3, "p": 4}
numbers = st.integers(-(10**5), 10**5)


def parsed(text, decimals=0, unit="us", separator=b",", width=5, where=ORDER):
    return regular_columns(io.BytesIO(text.encode()), Layout(separator, width, where, decimals), unit)


@given(
    st.lists(st.tuples(numbers, st.integers(-(10**12), 10**12), numbers, numbers, numbers), min_size=1, max_size=20),
    st.integers(0, 9),
    st.sampled_from(["s", "ms", "ns"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_every_number_is_exact(rows, decimals, unit, newline, is_ended):
    """Against Python's decimals, in pieces of a few lines."""
    times = [Decimal(row[1]).scaleb(-decimals) for row in rows]
    lines = [f"{row[0]},{time:f},{row[2]},{row[3]:+d},{row[4]}" for row, time in zip(rows, times, strict=True)]
    text = newline.join(lines) + (newline if is_ended else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "PIECE", 37)
        columns = parsed(text, decimals, unit)
    scale = {"s": 6, "ms": 3, "ns": -3}[unit] if decimals else 0
    wanted = [int(time.scaleb(scale).to_integral_value(ROUND_HALF_EVEN)) for time in times]
    assert columns["t"].tolist() == wanted
    for name, place in (("x", 0), ("y", 3), ("p", 4)):
        assert columns[name].tolist() == [row[place] for row in rows]


@pytest.mark.parametrize(
    "line",
    [
        "1,2,3,4",
        "1,2,3,4,5,6",
        "1,2,3,4,",
        "1,2,3,4,x",
        "1,,3,4,5",
        "1,2.0,3,4,5",
        "1, 2,3,4,5",
        "1,2,3,4,5.0",
        "1,-,3,4,5",
    ]
    + ["", "# 1,2,3,4,5", "1,1e3,3,4,5", "1,nan,3,4,5", "1,2,3,4,--5", "1,2,3;4,5", "1,1234567890123456789,3,4,5"],
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_irregular_line_anywhere_is_left_to_the_other(line, place):
    lines = ["7,8,9,1,0"] * 3
    assert parsed("\n".join(lines))["t"].tolist() == [8, 8, 8]
    lines.insert(place, line)
    assert parsed("\n".join([*lines, "1,2,3,4,5"])) is None


def test_times_that_leave_their_column_are_left_to_the_other():
    assert parsed("1,123456789012345678,3,4,5")["t"].tolist() == [123456789012345678]
    assert parsed("1,12345678901234567.8,3,4,5", 1, "s") is None
    assert parsed("1,2.5,3,4,5", 1, "us") is None  # no whole microseconds: the error names it


def test_blanks_and_runs_of_them(tmp_path):
    regular, irregular = tmp_path / "a.txt", tmp_path / "b.txt"
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 10**9, 500))
    rows = [f"{v / 1e6:.6f} {x} {y} {p}" for v, x, y, p in zip(t, *rng.integers(0, 2, (3, 500)), strict=True)]
    regular.write_text("\n".join(rows))
    irregular.write_text("\n".join(row.replace(" ", "   ") for row in rows))
    wanted = read_events(regular, columns="txyp", unit="s")
    assert wanted.t.tolist() == t.tolist()
    assert read_events(irregular, columns="txyp", unit="s") == wanted
