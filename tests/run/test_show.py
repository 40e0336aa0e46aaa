"""What a trainer shows: checked where it is made, kept without pickle, restored on resume, drawn as it is."""

import io
import json
import math
import re
from base64 import b64decode
from html import unescape

import numpy as np
import PIL.Image
import pytest
import torch

import spikecore
from spikecore.analysis import figures
from spikecore.analysis.png import png
from spikecore.errors import ContractError, ShapeError
from spikecore.interfaces import Animation, Curve, Histogram, Image, Table
from spikecore.registry import Blocking, Registry, use
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.config import resolve
from spikecore.run.experiment import evaluate, resume
from spikecore.run.gallery import FOLDER, MAX_NAMES, Gallery, from_plain, read_gallery, to_plain
from spikecore.run.record import Record
from spikecore.run.report import build, write_report
from spikecore.run.tree import flatten, restore
from spikecore.trainers import confusion
from tests.run.toy_trainers import Alone

NAN = float("nan")
GREY = torch.arange(12, dtype=torch.uint8).reshape(3, 4) * 20
VALUES = {
    "loss by step": Curve(
        {"a": (1.0, None, 0.25), "b": (0.5, 0.4, 0.3)}, x=(0.0, 0.5, 1.0), x_label="share", caption="c"
    ),
    "weights": Image(GREY, "first layer"),
    "colour": Image(torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))),
    "walk": Animation(torch.eye(6).unsqueeze(0).repeat(4, 1, 1) * torch.linspace(0, 1, 4)[:, None, None], 5.0),
    "best runs": Table(("name", "score", "n"), (("a", 0.125, 3), ("b", None, 4))),
    "rates": Histogram((3, 0, 5.5), edges=(0.0, 0.1, 0.5, 1.0)),
    "by class": Histogram((0.5, None), names=("cat", "dog"), is_share=True),
}


class Shows(Alone):
    """Shows its epoch; the name `late` is new in epoch 2."""

    def fit(self, task, context):
        while self._epoch < self.config.epochs:
            self._epoch += 1
            context.show("epoch", Table(("epoch",), ((self._epoch,),)))
            if self._epoch >= 2:
                context.show("late", Image(GREY + self._epoch))
            with torch.no_grad():
                task.model.weight *= 0.5
            context.log(epoch=self._epoch, norm=1.0)
            context.checkpoint(float(-self._epoch))
        return self.evaluate(task, context)


@pytest.fixture(autouse=True)
def own_registry():
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("trainer", "shows", Shows)
        yield registry


def config(**run):
    return resolve({"trainer": {"name": "shows", "epochs": 4}, "run": {"keep_last": 9, **run}})


def same(a, b):
    """Values are equal, tensors too."""
    plain = [flatten(to_plain("x", value)) for value in (a, b)]
    (left, lefts), (right, rights) = plain
    return left == right and lefts.keys() == rights.keys() and all(torch.equal(lefts[k], rights[k]) for k in lefts)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Curve({}), "1 to 24 series, got 0"),
        (lambda: Curve({"a": (1.0,), "b": (1.0, 2.0)}), r"one length, got lengths \[1, 2\]"),
        (lambda: Curve({"a": (1.0, NAN)}), "finite numbers, got nan; write None"),
        (lambda: Curve({"a": (1.0, "2")}), "must hold numbers, got '2'"),
        (lambda: Curve({"a": (1.0, 2.0)}, x=(0.0,)), "x has 1 values and each series 2"),
        (lambda: Curve({"a": [0.0] * 10_001}), "1 to 10000 points in a series, got 10001"),
        (lambda: Curve({3: (1.0,)}), "name of a series must be a string, got 3"),
        (lambda: Curve({"a": ()}), "1 to 10000 points"),
        (lambda: Image(np.zeros((2, 2))), "takes a tensor .* got ndarray; torch.from_numpy"),
        (lambda: Image(torch.zeros(2, 4, 4)), r"got \[2, 4, 4\]"),
        (lambda: Image(torch.zeros(0, 4)), r"got \[0, 4\]"),
        (lambda: Image(torch.zeros(1001, 1000)), "at most 1000000 pixels, got 1001000"),
        (lambda: Image(torch.full((2, 2), 1.5)), "floats must lie in 0 .. 1, got 1.5 .. 1.5"),
        (lambda: Image(torch.full((2, 2), NAN)), "not finite"),
        (lambda: Image(torch.zeros(2, 2, dtype=torch.int64)), "uint8 0 .. 255 or floats 0 .. 1, got torch.int64"),
        (lambda: Animation(torch.zeros(4, 4)), r"\[N, H, W\].* got \[4, 4\]"),
        (lambda: Animation(torch.zeros(5, 1000, 1000)), "at most 4000000 pixels in all frames, got 5000000"),
        (lambda: Animation(torch.zeros(2, 4, 4), 0.0), "above 0 and at most 100, got 0"),
        (lambda: Table((), ()), "at least one column"),
        (lambda: Table(("a",), ((1, 2),)), "row 0 has 2 cells, head has 1"),
        (lambda: Table(("a",), ((math.inf,),)), "finite"),
        (lambda: Table(("a",), (([],),)), r"must hold numbers, got \[\]"),
        (lambda: Table(("a",), [(1,)] * 10_001), "at most 10000 cells, got 10001"),
        (lambda: Table(("", "a"), (("x", 1), ("y", 1)), is_matrix=True), r"2 rows has 1 \+ 2 columns, got 2"),
        (lambda: Table(("", "a"), (("x", -1),), is_matrix=True), "0 or more, got -1 in the row 'x'"),
        (lambda: Histogram((1, 2)), "either edges or names"),
        (lambda: Histogram((1,), edges=(0, 1), names=("a",)), "either edges or names"),
        (lambda: Histogram((1, 2), edges=(0, 1)), "2 values have 3 edges, got 2"),
        (lambda: Histogram((1, 2), edges=(0, 1, 1)), "edges must rise"),
        (lambda: Histogram((-1,), names=("a",)), "must be 0 or more"),
        (lambda: Histogram((1.5,), names=("a",), is_share=True), "at most 1"),
        (lambda: Table(("a",), (("x",),), caption="c" * 2001), "2001 characters; at most 2000"),
        (lambda: confusion(torch.zeros(2, 3, dtype=torch.int64)), r"counts \[N, N\], got \[2, 3\]"),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_made(make, says):
    with pytest.raises((ContractError, ShapeError), match=says):
        make()


def test_pixels_are_kept_as_bytes_and_are_a_copy():
    pixels = torch.tensor([[0.0, 0.5, 1.0]])
    image = Image(pixels)
    pixels.zero_()
    assert image.pixels.dtype == torch.uint8
    assert image.pixels.tolist() == [[0, 128, 255]]
    numbers = Histogram(torch.tensor([1.0, 2.0]), edges=np.array([0.0, 1.0, 2.0]))
    assert (numbers.values, numbers.edges) == ((1.0, 2.0), (0.0, 1.0, 2.0))


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_comes_back_as_it_was(name, tmp_path):
    gallery = Gallery()
    gallery.directory = tmp_path
    gallery.show(name, VALUES[name])
    values, problems = read_gallery(tmp_path)
    assert problems == []
    assert list(values) == [name]
    assert same(values[name], VALUES[name])
    data, tensors = flatten({"shown": gallery.state()})
    again = Gallery()
    again.restore(restore(json.loads(json.dumps(data)), tensors)["shown"])
    assert same(again.values[name], VALUES[name])


def test_a_gallery_refuses_what_it_cannot_keep(tmp_path):
    gallery = Gallery()
    for name, value, says in (
        ("a", [1, 2], r"takes one of Curve, Image, Animation, Table, Histogram .* got \[1, 2\]"),
        ("", VALUES["weights"], "1 to 80 printable characters, got ''"),
        ("a\nb", VALUES["weights"], "printable"),
        ("x" * 81, VALUES["weights"], "1 to 80"),
    ):
        with pytest.raises(ContractError, match=says):
            gallery.show(name, value)
    for index in range(MAX_NAMES):
        gallery.show(str(index), VALUES["rates"])
    gallery.show("7", VALUES["rates"])
    with pytest.raises(ContractError, match="100 names are in use"):
        gallery.show("one more", VALUES["rates"])


def test_names_that_look_alike_do_not_overwrite_each_other(tmp_path):
    gallery = Gallery()
    gallery.directory = tmp_path
    for name in ("a/b", "a b", "../../a-b", "ä"):
        gallery.show(name, Table(("name",), ((name,),)))
    values, _ = read_gallery(tmp_path)
    assert [value.rows[0][0] for value in values.values()] == list(values) == ["a/b", "a b", "../../a-b", "ä"]
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER}


def test_a_resumed_run_shows_what_it_showed_then(tmp_path, monkeypatch):
    out = tmp_path / "r"
    spikecore.run(config(), out=out)
    whole = build(out)
    assert {name: value.kind for name, value in read_gallery(out)[0].items()} == {"epoch": "table", "late": "image"}
    names = CheckpointStore(out, Record.read(out).id).names()
    fit, seen = Shows.fit, []

    def look(self, task, context):
        seen.append(read_gallery(out)[0])  # what is there when training goes on
        return fit(self, task, context)

    monkeypatch.setattr(Shows, "fit", look)
    resume(out, checkpoint=names[0])
    assert list(seen[0]) == ["epoch"], "`late` came after this checkpoint"
    assert seen[0]["epoch"].rows == ((1,),)
    figure = re.search(r'<figure id="shown-0-epoch".*?</figure>', whole, re.DOTALL)[0]
    assert figure in build(out)
    assert same(read_gallery(out)[0]["late"], Image(GREY + 4))


def test_a_run_that_starts_again_from_its_seed_shows_nothing_of_before(tmp_path, monkeypatch):
    def die(self, task, context):
        context.show("early", VALUES["weights"])
        raise ZeroDivisionError

    out = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(Shows, "fit", die)
        with pytest.raises(ZeroDivisionError):
            spikecore.run(config(), out=out)
    assert list(read_gallery(out)[0]) == ["early"]
    assert 'id="shown-0-early"' in build(out), "the report of a run that failed shows it"
    resume(out)
    assert list(read_gallery(out)[0]) == ["epoch", "late"]


def test_an_evaluation_writes_nothing_into_the_run(tmp_path):
    small = {"trainer": {"epochs": 1}, "model": {"name": "mlp", "hidden": [8]}, "encoder": {"num_steps": 2}}
    spikecore.run(resolve(small), out=tmp_path / "r")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / FOLDER).iterdir()}
    assert len(before) == 2
    evaluate(tmp_path / "r")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / FOLDER).iterdir()} == before


def report_of(tmp_path, values):
    out = tmp_path / "r"
    spikecore.run(config(report=False), out=out)
    gallery = Gallery()
    gallery.values = read_gallery(out)[0]
    gallery.directory = out
    for name, value in values.items():
        gallery.show(name, value)
    return write_report(out).read_text(encoding="utf-8")


def pictures(html):
    """Alternative text → file, of each picture in a page."""
    images = re.findall(r'<img [^>]*alt="([^"]*)" src="data:image/png;base64,([^"]*)">', html)
    return {unescape(name): b64decode(data) for name, data in images}


def test_the_report_lays_all_of_it_out(tmp_path):
    html = report_of(tmp_path, VALUES)
    ids = re.findall(r'<figure id="(shown-[^"]*)"', html)
    assert ids == [
        "shown-0-epoch",
        "shown-1-late",
        "shown-2-loss-by-step",
        "shown-3-weights",
        "shown-4-colour",
        "shown-5-walk",
        "shown-6-best-runs",
        "shown-7-rates",
        "shown-8-by-class",
    ]
    assert "First layer" not in html
    assert "first layer 4 × 3 pixels." in html
    assert "4 frames of 6 × 6 pixels, 5 per second." in html
    assert '<td>a</td><td class="number">0.125</td><td class="number">3</td>' in html
    assert "<td>b</td><td></td>" in html
    assert "<title>0.1 to 0.5: 0</title>" in html
    assert ">50.0%<" in html
    image = PIL.Image.open(io.BytesIO(pictures(html)["weights"]))
    assert np.array_equal(np.array(image), GREY.numpy())
    colour = np.array(PIL.Image.open(io.BytesIO(pictures(html)["colour"])))
    assert np.array_equal(colour, VALUES["colour"].pixels.permute(1, 2, 0).numpy())
    moving = PIL.Image.open(io.BytesIO(pictures(html)["walk"]))
    assert (moving.n_frames, moving.info["loop"]) == (4, 0)
    for index in range(4):
        moving.seek(index)
        assert moving.info["duration"] == 200
        assert np.array_equal(np.array(moving.convert("L")), VALUES["walk"].frames[index].numpy())


def test_every_string_that_is_shown_is_escaped(tmp_path):
    evil = "<img src=x onerror=\"alert('1')\">"
    values = {
        evil: Table((evil, "b"), ((evil, 1),), caption=evil),
        f"2{evil}": Curve({evil: (1.0, 2.0), "b": (2.0, 3.0)}, x_label=evil, caption=evil),
        f"3{evil}": Image(GREY, evil),
        f"4{evil}": Animation(torch.zeros(2, 3, 3), 3.0, evil),
        f"5{evil}": Histogram((0.5,), names=(evil,), caption=evil),
        f"6{evil}": Histogram((0.5,), edges=(0, 1), caption=evil),
        f"7{evil}": Table((f"{evil} / {evil}", evil), ((evil, 3),), is_matrix=True),
    }
    html = report_of(tmp_path, values)
    assert "<img src" not in html
    assert 'onerror="' not in html
    assert html.count("<img") == 3, "the three pictures only"
    assert set(pictures(html)) == {"late", f"3{evil}", f"4{evil}"}


def test_a_damaged_value_costs_its_figure_only(tmp_path):
    report_of(tmp_path, VALUES)
    first, second, *_ = sorted((tmp_path / "r" / FOLDER).iterdir())
    first.write_bytes(first.read_bytes()[:40])
    second.write_bytes(b"")
    html = build(tmp_path / "r")
    assert f"{FOLDER}/{first.name} is damaged" in html
    assert f"{FOLDER}/{second.name} is damaged" in html
    assert 'id="shown-0-loss-by-step"' in html


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_is_read_by_another_program(channels, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, channels), dtype=np.uint8)
    image = PIL.Image.open(io.BytesIO(png([pixels.tobytes()], 9, 5, channels)))
    assert (image.mode, image.size) == (mode, (9, 5))
    assert np.array_equal(np.array(image).reshape(pixels.shape), pixels)


def test_bars_of_a_histogram_stand_on_their_ranges():
    svg = figures.histogram((1.0, None, 4.0), (0.0, 1.0, 2.0, 4.0), "h", height=240)
    boxes = [tuple(map(float, box)) for box in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" height="([\d.]+)"', svg)]
    (x0, y0, h0), (x1, y1, h1) = boxes
    inner = figures.WIDTH - 52 - 12
    assert (x0, x1) == (52, pytest.approx(52 + inner / 2))
    assert h1 == pytest.approx(4 * h0, rel=0.01)
    assert (y0 + h0, y1 + h1) == (pytest.approx(216, abs=0.11), pytest.approx(216, abs=0.11))


def test_the_confusion_of_a_class_without_samples_is_no_number():
    shown = confusion(torch.tensor([[3, 1], [0, 0]]), ("cat",), "val")
    assert shown["recall"].values == (0.75, None)
    assert shown["confusion"].rows == (("cat", 3, 1), ("1", 0, 0))
    assert shown["confusion"].caption == "Val split, 4 samples."


def test_plain_data_of_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        from_plain({"name": "a", "kind": "video", "value": {}})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Curve([1, 2, 3]), r"Curve: series must be a dict, name -> values, as in Curve\(.*got list"),
        (lambda: Curve({"loss": 3.0}), r"Curve: series 'loss' must be a list, .*got 3\.0"),
        (lambda: Curve({"loss": [1.0]}, x=2), r"Curve: x must be a list, .*got 2"),
        (lambda: Table("head", [["a"]]), r"Table: head must be a list, .*got 'head'"),
        (lambda: Table(["head"], 3), r"Table: rows must be a list, .*got 3"),
        (lambda: Table(["head"], ["a"]), r"Table: row 0 must be a list, .*got 'a'"),
        (lambda: Histogram(3.0, names=["a"]), r"Histogram: values must be a list"),
        (lambda: Histogram([1.0], names="a"), r"Histogram: names must be a list"),
        (lambda: Histogram(torch.tensor(1.0), edges=[0.0, 1.0]), r"Histogram: values must be a list"),
    ],
)
def test_what_is_no_list_is_refused(make, says):
    with pytest.raises(ContractError, match=says):
        make()


def test_arrays_and_tensors_are_lists():
    assert Curve({"loss": torch.tensor([1.0, 2.0])}).series == {"loss": (1.0, 2.0)}
    assert Histogram(np.array([1.0, 2.0]), names=["a", "b"]).values == (1.0, 2.0)
