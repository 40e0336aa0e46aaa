"""The site, built once for all tests of it."""

import pytest

from tests.tools.site.__main__ import build


@pytest.fixture(scope="session")
def site():
    return build()  # warnings and dead links end it
