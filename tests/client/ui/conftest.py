"""A browser, where there is one."""

import shutil
from collections.abc import Iterator

import pytest

from tests.client.ui.pages import Visit


@pytest.fixture(scope="session")
def chromium():
    """A headless browser for all tests of a process."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine; Debian: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as play:
        # Who runs the tests in a container is root, for whom chromium has no sandbox.
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium) -> Iterator[Visit]:
    """A fresh visitor: no cookies, nothing kept. A page that throws an error in the browser fails the test."""
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        found = Visit(context)
        yield found
        assert found.complaints == []
