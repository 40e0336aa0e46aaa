"""The report in a browser: two widths, light and dark. Needs chromium; screenshots go to .build/screenshots."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

import spikecore
from spikecore.interfaces import Animation, Curve, Histogram, Image, Table
from spikecore.run import compare
from spikecore.run.config import resolve
from spikecore.run.gallery import Gallery, read_gallery
from spikecore.run.kept_profile import keep
from spikecore.run.profile import profile
from spikecore.run.record import Record
from spikecore.run.report import write_report
from tests.browser.chromium import Chromium

SCREENSHOTS = Path(__file__).resolve().parents[2] / ".build/screenshots"
LAYERS = ("layers.1", "layers.4")
ACTIVITY = [
    f"{kind}-{when}-{name}" for name in LAYERS for kind in ("raster", "membrane") for when in ("before", "after")
]
BEFORE = [name for name in ACTIVITY if "before" in name]
CONFUSION = ["shown-0-confusion", "shown-1-recall"]
WAVE = torch.linspace(0, 6.28, 60)
VALUES = {
    "loss by step": Curve(
        {"policy": WAVE.sin().tolist(), "value": [None, *WAVE.cos().tolist()[1:]]}, caption="Curves."
    ),
    "first weights": Image(torch.rand(8, 12, generator=torch.Generator().manual_seed(0)), "Small, so enlarged."),
    "a photo": Image(torch.rand(3, 90, 900, generator=torch.Generator().manual_seed(1)), "Wider than the page."),
    "a tall one": Image(torch.linspace(0, 1, 3000).reshape(1000, 3), "Taller than the page."),
    "walk": Animation(torch.eye(16).unsqueeze(0) * torch.linspace(0, 1, 9)[:, None, None], 5.0, "It moves."),
    "best runs": Table(("name", "score", "runs"), (("a", 0.123456789, 3), ("a much longer name " * 4, None, 4))),
    "weights": Histogram((3, 0, 5.5, 9, 2), edges=(-1.0, -0.5, 0.1, 0.5, 0.75, 1.0), caption="Ranges that differ."),
}
SHOWN = [f"shown-{index}-{name.replace(' ', '-')}" for index, name in enumerate(VALUES, 2)]
FIGURES = {
    "finished": ["loss", "accuracy", *CONFUSION, "rates", "shares", *ACTIVITY, "time"],
    "shown": ["loss", "accuracy", *CONFUSION, *SHOWN, "rates", "shares", *ACTIVITY, "time"],
    "died": ["loss", "accuracy", *CONFUSION, "rates", "shares", *BEFORE, "time"],
    "profiled": ["loss", "accuracy", *CONFUSION, "rates", "shares", *ACTIVITY, "time", "operations", "energy", "times"],
    "compare": ["compare-train_loss", "compare-val_accuracy", "compare-val_loss"],
}
LOOK = """(() => {
  const box = e => e.getBoundingClientRect();
  const figures = [...document.querySelectorAll('figure')].map(figure => {
    const inside = box(figure), svg = figure.querySelector('svg');
    if (!svg) {
      const parts = [...figure.querySelectorAll('img, table')];
      const isDrawn = e => e.tagName == 'TABLE' ? box(e).width > 0 : e.complete && e.naturalWidth > 0;
      const outside = parts.filter(e => e.tagName == 'IMG' && (box(e).right > inside.right || box(e).height > 500));
      return {id: figure.id, width: inside.width, height: inside.height, marks: parts.filter(isDrawn).length,
              outside: outside.map(e => e.alt), smallest: 99};
    }
    const frame = box(svg);
    const marks = [...svg.querySelectorAll('path, rect, circle')].filter(e => box(e).width + box(e).height > 0);
    const outside = [...svg.querySelectorAll('text')].filter(e => {
      const b = box(e);
      return b.left < frame.left - 1 || b.right > frame.right + 1
        || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
    }).map(e => e.textContent);
    const scale = frame.width / svg.viewBox.baseVal.width;
    const sizes = [...svg.querySelectorAll('text')].map(e => parseFloat(getComputedStyle(e).fontSize) * scale);
    return {id: figure.id, width: frame.width, height: frame.height, marks: marks.length, outside,
            smallest: Math.min(...sizes)};
  });
  const style = getComputedStyle(document.body);
  return JSON.stringify({
    figures, overflow: document.documentElement.scrollWidth - window.innerWidth,
    background: style.backgroundColor, text: style.color,
    muted: getComputedStyle(document.querySelector('.sub, .note, figcaption, th')).color,
    tables: document.querySelectorAll('table tr').length,
  });
})()"""


@pytest.fixture(scope="module")
def browser():
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = resolve({"trainer": {"epochs": 6}, "run": {"name": "digits"}})
    for name in ("finished", "died"):
        spikecore.run(config, out=folder / name)
    shutil.copytree(folder / "finished", folder / "shown")
    gallery = Gallery()
    gallery.values = read_gallery(folder / "shown")[0]
    gallery.directory = folder / "shown"
    for name, value in VALUES.items():
        gallery.show(name, value)
    write_report(folder / "shown")
    shutil.copytree(folder / "finished", folder / "profiled")
    keep(folder / "profiled", profile(folder / "profiled", num_samples=4, num_calls=1))
    write_report(folder / "profiled")
    dataclasses.replace(Record.read(folder / "died"), status="running").write(folder / "died")
    (folder / "died/probe-after.safetensors").unlink()
    write_report(folder / "died")
    compare.write(compare.read([folder / "finished", folder / "died"]), folder / "compare.html")
    return {
        "finished": folder / "finished/report.html",
        "shown": folder / "shown/report.html",
        "died": folder / "died/report.html",
        "profiled": folder / "profiled/report.html",
        "compare": folder / "compare.html",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", list(FIGURES))
def test_a_page(name, width, scheme, browser, pages):
    url = pages[name].as_uri()
    browser.show(url, width, scheme)
    seen = json.loads(browser.evaluate(LOOK))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.screenshot(SCREENSHOTS / f"{name}-{width}-{scheme}.png")
    assert browser.problems() == []
    assert [address for address in browser.requests() if not address.startswith("data:")] == [url]
    assert [figure["id"] for figure in seen["figures"]] == FIGURES[name]
    for figure in seen["figures"]:
        assert 250 < figure["width"] <= width, figure
        assert figure["height"] > 20, figure
        assert figure["marks"] >= 1, figure
        assert figure["outside"] == [], figure
        assert figure["smallest"] >= 8, figure
    assert seen["overflow"] <= 0
    assert seen["tables"] >= 3
    light, dark = luminance(seen["background"]), luminance(seen["text"])
    assert (light > dark) == (scheme == "light")
    for text in ("text", "muted"):
        assert contrast(seen[text], seen["background"]) >= 4.5, text


def test_a_page_that_asks_for_something_is_caught(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('x'); nothing()</script><img src='no.png'>")
    browser.show(page.as_uri(), 390, "light")
    assert len(browser.problems()) >= 3
    assert len(browser.requests()) == 2


def luminance(colour):
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (int(part) / 255 for part in colour.strip("rgb()").split(","))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
