"""Text and CSV: headings, separators, units, and lines that are no events."""

import numpy as np
import pytest
import writers
from test_folder import columns, fill

from spikecore import create
from spikecore.errors import DatasetError
from spikecore_datasets_dvs import make_events, read_events

EVENTS = make_events(*columns(1, 3))


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("t_us,x,y,p", {}),
        ("x;y;p;timestamp [us]", {}),
        ("polarity\tt(ms)\tx\ty", {}),
        ("t_s x y p", {}),
        ("time_ns, x, y, pol", {}),
        ("# written by a camera\nt_us,x,y,p", {}),
        ("t,x,y,p", {"unit": "us"}),
        ("stamp,x,y,p", {"unit": "us", "names": "t=stamp"}),
        ('"t_us","x","y","p"', {}),
        ("\ufefft_us,x,y,p", {}),
    ],
)
def test_headings(heading, options, tmp_path):
    *comments, names = heading.split("\n")
    unit = next((u for u in ("ms", "ns", "us", "s") if any(f"{a}{u}" in names for a in "_([")), "us")
    order = [
        part.strip("\"' \ufeff")[0]
        for part in names.replace(";", ",")
        .replace("\t", ",")
        .split("," if "," in names or ";" in names or "\t" in names else " ")
    ]
    order = ["t" if letter == "s" else letter for letter in order]
    mark = next((mark for mark in (",", ";", "\t") if mark in names), " ")
    plain = mark.join(f"t_{unit}" if letter == "t" else letter for letter in order)
    body = writers.text(*(getattr(EVENTS, c).tolist() for c in "txyp"), heading=plain)
    (tmp_path / "a.csv").write_bytes(heading.encode() + b"\n" + body.partition(b"\n")[2])
    assert read_events(tmp_path / "a.csv", **options) == EVENTS


@pytest.mark.parametrize("options", [{"columns": "txyp", "unit": "s"}, {"columns": "t_xyp", "unit": "s"}])
def test_without_a_heading_the_user_says_it(options, tmp_path):
    """As the RPG event-camera dataset has it: seconds since 1970, blanks, and W and H first in some files."""
    skipped = "9 " if "_" in options["columns"] else ""
    lines = [
        f"{t / 1e6 + 1.4e9:.6f} {skipped}{x} {y} {p}"
        for t, x, y, p in zip(*(getattr(EVENTS, c).tolist() for c in "txyp"), strict=True)
    ]
    for first in ("", "346 260\n"):
        (tmp_path / "events.txt").write_text(first + "\n".join(lines))
        events = read_events(tmp_path / "events.txt", **options)
        assert events == EVENTS.replace(t=EVENTS.t + 1_400_000_000 * 1_000_000)


def test_whole_numbers_first_and_fractions_later(tmp_path):
    (tmp_path / "a.csv").write_text("t_s,x,y,p\n0,1,2,1\n0.000002,1,2,-1\n\n1e-5,3,4,1\n")
    assert read_events(tmp_path / "a.csv") == make_events([0, 2, 10], [1, 1, 3], [2, 2, 4], [1, 0, 1])


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("1 2 3 1\n", {}, 'has no heading; its first line is \'1 2 3 1\'.*columns = "txyp" and unit = "s"'),
        ("1 2 3 1\n", {"columns": "txyp"}, r"does not state the unit of times; the only one is 1\. Say it, as in unit"),
        ("t,x,y,p\n1,2,3,1\n", {}, "does not state the unit"),
        ("t_us,x,y,p\n1,2,3,1\n", {"unit": "s"}, "states times in us, and unit = 's' was given"),
        ("1 2 3\n", {"columns": "txyp", "unit": "us"}, "names 4 columns, and the first line has 3: '1 2 3'"),
        ("t_us,x,y\n1,2,3\n", {}, "lacks the column 'p'; it has t_us, x, y"),
        ("t_us,x,y,p\n1,2,3\n", {}, "its heading names 4 columns, and the first line has 3"),
        ("t_us,x,y,p\n1,2,3,1\n2,2,3\n", {}, "a line is no event like the first"),
        ("t_us,x,y,p\n1,2,3,1\n2,2,abc,1\n", {}, "a line is no event like the first: .*abc"),
        ("t_us,x,y,p\nmore,words,than,one\n", {}, "is no numbers"),
        ("t_us,x,y,p\n1,2,3,1\n2,2.5,3,1\n", {}, "column x must hold whole numbers; got 2.5"),
        ("t_us,x,y,p\n1,2,3,1\n2,-2,3,1\n", {}, "column x runs from -2 to 2"),
        ("t_us,x,y,p\n1,2,3,1\n2,2,3,7\n", {}, "the polarities are 1"),
        ("t_us,x,y,p\n1,2,3,1\nnan,2,3,1\n", {}, "not finite"),
        ("x" * 5000, {}, "is no text of an event a line"),
        ("\0\1\2", {}, "is no text of an event a line"),
        ("#\n" * 10_001, {}, "are comments"),
    ],
)
def test_texts_that_leave_something_open(content, options, says, tmp_path):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DatasetError, match=says):
        read_events(tmp_path / "a.csv", **options)


@pytest.mark.parametrize("text", ["t_us,x,y,p\n", "t_us,x,y,p", "# t x y p\n", "346 260\n"])
def test_no_events_below_a_heading(text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DatasetError, match="holds no events, though it is read as text.*allow_empty = true"):
        read_events(tmp_path / "a.csv")
    assert len(read_events(tmp_path / "a.csv", allow_empty=True)) == 0


def test_a_folder_takes_text_only_where_it_is_named(tmp_path, data):
    for label, name in enumerate("ab"):
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "r" / name / f"{i}.csv").write_bytes(writers.text(*columns(label, i)))
    options = {"root": str(tmp_path / "r"), "sensor_size": [16, 16]}
    with pytest.raises(DatasetError, match=r'holds no recordings .*it has \.csv files: form = "text" reads them'):
        create("dataset", "event-folder", **options).split("train")
    assert create("dataset", "event-folder", form="text", **options).split("train")[0][0].sum() == 400
    fill(tmp_path / "other", formats=("dat",))
    (tmp_path / "other" / "left" / "notes.txt").write_text("not a recording")
    create("dataset", "event-folder", **{**options, "root": str(tmp_path / "other")}).split("train")


def test_text_is_exact_beyond_doubles(tmp_path):
    t = [2**53 + 1, 2**53 + 2]
    (tmp_path / "a.csv").write_text(f"t_us,x,y,p\n{t[0]},1,2,1\n{t[1]},1,2,0\n")
    assert read_events(tmp_path / "a.csv").t.tolist() == t
    assert int(np.float64(t[0])) != t[0]


def test_a_heading_in_a_comment(tmp_path):
    (tmp_path / "a.txt").write_text("# made by hand\n# x y t_us p\n3 4 10 1\n5 6 20 0\n")
    assert read_events(tmp_path / "a.txt") == make_events([10, 20], [3, 5], [4, 6], [1, 0])
    (tmp_path / "a.txt").write_text("# t x y p\n10 3 4 1\n20 5 6 0\n")
    with pytest.raises(
        DatasetError, match="does not state the unit of times; they run from 10 to 20: 10 s if they are in s"
    ):
        read_events(tmp_path / "a.txt")
    assert read_events(tmp_path / "a.txt", unit="us") == make_events([10, 20], [3, 5], [4, 6], [1, 0])
    with pytest.raises(DatasetError, match="names column 2 'x', and 'columns' says that it is y"):
        read_events(tmp_path / "a.txt", unit="us", columns="tyxp")
    (tmp_path / "a.txt").write_text("# t x y p z\n10 3 4 1\n")
    with pytest.raises(DatasetError, match="its heading names 5 columns, and the first line has 4"):
        read_events(tmp_path / "a.txt", unit="us")


def test_true_and_false(tmp_path):
    (tmp_path / "a.csv").write_text("t_us,x,y,p\n10,3,4,True\n20,5,6,False\n30,5,6,true\n")
    assert read_events(tmp_path / "a.csv") == make_events([10, 20, 30], [3, 5, 5], [4, 6, 6], [1, 0, 1])
    (tmp_path / "a.csv").write_text("10,3,4,FALSE\n20,5,6,TRUE\n")
    assert read_events(tmp_path / "a.csv", columns="txyp", unit="us").p.tolist() == [0, 1]
    (tmp_path / "a.csv").write_text("t_us,x,y,p\n10,3,4,True\n20,5,6,1\n")
    with pytest.raises(DatasetError, match="polarities begin with True or False, and one is '1'"):
        read_events(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("t_us,x,y,p\n10,True,4,1\n20,5,6,1\n")
    with pytest.raises(DatasetError, match="a line is no event like the first"):
        read_events(tmp_path / "a.csv")


def test_lines_of_other_lengths_name_an_option_that_there_is(tmp_path):
    (tmp_path / "a.csv").write_text("t_us,x,y,p\n1,2,3,1\n2,2,3,1,9\n")
    with pytest.raises(DatasetError, match="with 4 columns each; 'columns' passes over those named _") as seen:
        read_events(tmp_path / "a.csv")
    assert "usecols" not in str(seen.value)
