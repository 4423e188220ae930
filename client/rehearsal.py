"""What the engineer sees of a rehearsal: the site's own log, followed until the reply has left."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic

from client.keys import SiteKeys
from client.log import site_log_file
from protocol.hashchain import Entry

STAGE = "train.rehearse"
LINGER_S = 3.0
"""The SuperNode hands the reply on after it is in the log."""


class Rehearsal:
    """Follows the log of the site in the folder `root` for at most `wait_s` seconds; lines go to `say`."""

    def __init__(self, root: Path, wait_s: float, say: Callable[[str], None]) -> None:
        self._log, self._say, self._wait_s = site_log_file(root), say, wait_s
        self._site = SiteKeys.open(root).joined().site
        self._known = len(self._log.entries())
        self._deadline = monotonic() + wait_s
        self._reply: Entry | None = None

    def over(self) -> bool:
        """Whether the reply has left, or the time is up."""
        entries = self._log.entries()
        for entry in entries[self._known :]:
            if entry.get("stage") == STAGE:
                self._see(entry)
        self._known = len(entries)
        return monotonic() >= self._deadline

    @property
    def passed(self) -> bool:
        """Whether a report has left."""
        return self._reply is not None and self._reply.get("answer") == "report"

    @property
    def verdict(self) -> str:
        """What came of it, in one line."""
        if self._reply is None:
            return (
                f"no order to rehearse came within {self._wait_s:g} s; state/supernode.log says whether the site is "
                f"connected. If it is, the operator asks it with: mumc-server rehearse DIR {self._site}"
            )
        if not self.passed:
            return f"refused ({self._reply['code']}): {self._reply['text']}"
        return (
            f"rehearsed: {self._reply['bytes'] / 1e6:.1f} MB of weights left, trained on synthetic data alone; the "
            f"receipt is line {self._reply['index'] + 1} of state/log.jsonl. This site can take part: mumc-site start"
        )

    def _see(self, entry: Entry) -> None:
        if entry["kind"] == "order":
            self._say(f"an order came, signed by the server, with {entry['bytes'] / 1e6:.1f} MB of weights")
        else:  # A reply, or an order that was turned away.
            self._reply = entry
            self._say("the reply is signed and on its way")
            self._deadline = min(self._deadline, monotonic() + LINGER_S)
