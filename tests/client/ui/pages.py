"""Pages as people meet them: the program as it is typed, in a process of its own, and a real browser before it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from playwright.sync_api import BrowserContext, Locator, Page, expect

PATIENCE_MS = 60_000
"""So long a test waits for what should be there at once: the machine may be busy."""
expect.set_options(timeout=PATIENCE_MS)
ROOT = Path(__file__).resolve().parents[3]
WATCHED = """
import sys
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if not arguments[1][0].startswith(("127.", "::1")):
            print("CONNECT", arguments[1], file=sys.stderr, flush=True)
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "127.0.0.1", "::1", "localhost"):
        print("LOOKUP", arguments[0], file=sys.stderr, flush=True)
sys.addaudithook(watch)
from {module} import main
main()
"""
"""The program, telling of every connection and every name that it asks for beyond this machine."""


@dataclass
class Served:
    """A page's program, running."""

    url: str
    process: subprocess.Popen
    errors: Path
    lines: list[str] = field(default_factory=list)

    @contextmanager
    def visitor(self) -> Iterator[httpx.Client]:
        """Requests by hand, of one who opened the printed address first."""
        with httpx.Client(base_url=self.url.split("?")[0], timeout=30) as client:
            client.get(self.url, follow_redirects=True).raise_for_status()
            yield client

    def left(self) -> list[str]:
        """What it tried to reach beyond this machine."""
        return [line for line in self.said().splitlines() if line.startswith(("CONNECT", "LOOKUP"))]

    def said(self) -> str:
        """All that it wrote to its terminal's error output."""
        return self.errors.read_text(encoding="utf-8")


@contextmanager
def served(folder: Path, module: str, *words: object) -> Iterator[Served]:
    """A page's program with these words; it ends as with Ctrl-C."""
    errors = folder / "page.err"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MUMC_REGISTRY": str(folder / "reg")}
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED.format(module=module), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            cwd=folder,
            env=environment,
        )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "://" in line), "")
        found = re.search(r"https?://\S+", line)
        assert found, errors.read_text(encoding="utf-8")
        yield Served(found[0], process, errors)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130, -signal.SIGINT)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Visit:
    """One visit to a page: what the browser asked for, and what it complained of."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def foreign(self, url: str) -> list[str]:
        """Requests to anything but the page's own address."""
        own = url.split("?")[0].rstrip("/")
        return [request for request in self.requests if not request.startswith((own, "data:", "blob:"))]

    def table(self, caption: str) -> list[list[str]]:
        """The cells of the table with this caption, row by row, its heads first."""
        found = self.page.locator("table", has=self.page.locator("caption", has_text=caption)).first
        found.wait_for()
        return [row.locator("th,td").all_inner_texts() for row in found.locator("tr").all()]

    def alert(self) -> Locator:
        """The one sentence that says what is wrong."""
        return self.page.get_by_role("alert")

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"))
