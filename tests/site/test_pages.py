"""Key pages in a browser: light and dark, wide and narrow."""

import pytest

from tests.browser.chromium import Chromium

PAGES = (
    "docs/index",
    "docs/tutorials/first-net",
    "docs/how-to/coming-from-spikingjelly",
    "docs/reference/parity",
    "docs/reference/support",
    "docs/generated/components/index",
    "docs/generated/components/neuron-lif",
    "docs/generated/plugins/neuron-zoo",
    "docs/generated/api/spikecore.nn",
)


@pytest.fixture(scope="module")
def browser():
    with Chromium() as browser:
        yield browser


def background(browser):
    return browser.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_its_window_and_asks_for_nothing_else(page, site, browser):
    colours = set()
    for width in (1280, 420):
        for scheme in ("light", "dark"):
            browser.show((site / f"{page}.html").resolve().as_uri(), width, scheme)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, f"{width} {scheme}"
            assert browser.problems() == []
            assert [address for address in browser.requests() if not address.startswith(("file:", "data:"))] == []
            colours.add(background(browser))
    assert len(colours) == 2  # dark is dark
