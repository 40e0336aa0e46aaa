"""The report in a browser: two widths, light and dark. Needs chromium; screenshots go to .build/screenshots."""

import dataclasses
import json
from pathlib import Path

import pytest

import spikecore
from spikecore.run import compare
from spikecore.run.config import resolve
from spikecore.run.record import Record
from spikecore.run.report import write_report
from tests.browser.chromium import Chromium

SCREENSHOTS = Path(__file__).resolve().parents[2] / ".build/screenshots"
LAYERS = ("layers.1", "layers.4")
ACTIVITY = [
    f"{kind}-{when}-{name}" for name in LAYERS for kind in ("raster", "membrane") for when in ("before", "after")
]
FIGURES = {
    "finished": ["loss", "accuracy", "confusion", "recall", "rates", "shares", *ACTIVITY, "time"],
    "died": ["loss", "accuracy", "rates", "shares", *(name for name in ACTIVITY if "before" in name), "time"],
    "compare": ["compare-train_loss", "compare-val_accuracy", "compare-val_loss"],
}
LOOK = """(() => {
  const box = e => e.getBoundingClientRect();
  const figures = [...document.querySelectorAll('figure')].map(figure => {
    const svg = figure.querySelector('svg'), frame = box(svg);
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
    dataclasses.replace(Record.read(folder / "died"), status="running").write(folder / "died")
    (folder / "died/probe-after.safetensors").unlink()
    write_report(folder / "died")
    compare.write(compare.read([folder / "finished", folder / "died"]), folder / "compare.html")
    return {
        "finished": folder / "finished/report.html",
        "died": folder / "died/report.html",
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
    assert browser.requests() == [url]
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
