"""The fast way from arrays to events gives what the careful way gives, or leaves the array to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import make_events
from spikecore_datasets_dvs.conversion import PIECE, converted

KINDS = ("i4", "u4", "i8", "f4", "f8")
odd = st.sampled_from([0, 1, -1, 2, 255, 65535, 65536, -5, 0.5, 1e300, float("nan"), float("inf"), 2.0**61, -(2.0**63)])


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.permutations("txyp"),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 99), st.integers(0, 99), st.integers(-1, 1)), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3), odd), max_size=2),
)
def test_as_the_careful_way_has_it(kind, unit, order, rows, faults):
    array = np.array(rows, np.float64).reshape(-1, 4)
    for row, column, value in faults:
        if row < len(array):
            array[row, column] = value
    with np.errstate(invalid="ignore", over="ignore"):
        array = array[:, ["txyp".index(name) for name in order]].astype(kind)
    got = converted(array, "".join(order), unit)
    try:
        wanted = make_events(*(array[:, order.index(name)] for name in "txyp"), unit=unit)
    except DatasetError:
        assert got is None
        return
    assert got is None or got == wanted
    if not faults and unit != "ns" and (kind != "f4" or unit == "us"):
        assert got is not None


@pytest.mark.parametrize("kind", ["i8", "f8"])
@pytest.mark.parametrize("place", [0, PIECE, 2 * PIECE + 6])
@pytest.mark.parametrize(("column", "value"), [(0, 2**62), (1, 70_000), (2, -1), (3, 2)])
def test_one_wrong_number_anywhere(kind, place, column, value):
    array = np.zeros((2 * PIECE + 7, 4), kind)
    array[:, 0] = np.arange(len(array))
    assert converted(array, "txyp", "us").t.tolist() == list(range(len(array)))
    array[place, column] = value
    assert converted(array, "txyp", "us") is None


def test_what_turned_over_is_left_to_the_careful_way():
    array = np.array([[4294967290, 1, 2, 0], [3, 1, 2, 1]], "u4")
    assert converted(array, "txyp", "us") is None
    assert converted(array[::-1], "txyp", "us").t.tolist() == [3, 4294967290]
