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
        # And no machine here has a GPU: to draw as if there were one takes a processor more.
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browsing(chromium):
    """What a browser keeps from one visit to the next: of a page only the program's own files."""
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest.fixture
def visit(browsing) -> Iterator[Visit]:
    """A new visitor without cookies. A page that throws an error in the browser fails the test."""
    found = Visit(browsing)
    yield found
    found.page.close()
    browsing.clear_cookies()
    assert found.complaints == []
