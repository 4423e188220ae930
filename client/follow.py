"""What an engineer sees of a client at work: how the connection is, what is asked of the site, what leaves it."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from client.log import site_log_file
from protocol.errors import ProtocolError
from protocol.hashchain import Entry

_SAID = re.compile(r"SuperNode ID|Connection attempt failed|Connection successful")
"""What Flower's SuperNode writes when it is let in, when the server does not answer, and when it does again."""

TAIL_BYTES = 1 << 16
"""Of the SuperNode's log, in which its last word of the connection is looked for."""


class Follower:
    """Says each new line of the site's log in a few words, and each change of the connection.

    Args:
        root: The site's folder.
        address: That the SuperNode dials.
        supernode_log: Where the SuperNode writes; what is in it already is of earlier starts.
        say: Where lines for a person go.
    """

    def __init__(self, root: Path, address: str, supernode_log: Path, say: Callable[[str], None] = print) -> None:
        self._root, self._address, self._say = root, address, say
        self._log, self._supernode = site_log_file(root), supernode_log
        self._known, self._bytes = len(self._log.entries()), _size(self._log.path)
        self._read, self._state = _size(supernode_log), ""

    def step(self) -> list[Entry]:
        """The lines of the site's log that are new; each was said."""
        self._look_at_connection()
        if (size := _size(self._log.path)) == self._bytes:
            return []
        try:
            entries = self._log.entries()
        except ProtocolError as error:
            self._say(f"{error}; see mumc-site log verify {self._root}")
            entries = []
        new, self._known, self._bytes = entries[self._known :], len(entries), size
        for entry in new:
            if words := told(entry):
                self._say(words)
        return new

    def _look_at_connection(self) -> None:
        if (size := _size(self._supernode)) <= self._read:
            return
        with self._supernode.open("rb") as file:
            file.seek(self._read)
            text = file.read(size - self._read).decode(errors="replace")
        self._read = size
        for found in _SAID.findall(text):
            self._say_once("away" if found == "Connection attempt failed" else "here")

    def _say_once(self, state: str) -> None:
        if state != self._state:
            away = f"{self._address} does not answer; trying again (mumc-site check {self._root} says what is wrong)"
            self._say(away if state == "away" else f"connected to {self._address}")
            self._state = state


def last_connection(supernode_log: Path) -> str:
    """What the SuperNode last wrote of its connection, and when it last wrote anything; empty where it never did."""
    if not supernode_log.is_file():
        return ""
    with supernode_log.open("rb") as file:
        file.seek(max(0, _size(supernode_log) - TAIL_BYTES))
        said = _SAID.findall(file.read().decode(errors="replace"))
    if not said:
        return ""
    state = "the server did not answer" if said[-1] == "Connection attempt failed" else "it was connected"
    last = datetime.fromtimestamp(supernode_log.stat().st_mtime, UTC)
    return f"When the client of this site last wrote of its connection, {state}; its last word is of {last:%F %T} UTC."


def told(entry: Entry) -> str:
    """A line of the site's log in a few words; empty for those that are none of the engineer's concern."""
    if entry["kind"] == "order":
        remark = f" (the server says of this site's last update: {entry['remark']})" if entry.get("remark") else ""
        return f"asked: {entry['stage']}, round {entry['round']} of {entry['run']}{remark}"
    if entry["kind"] == "turned_away":
        return f"turned away: {entry['stage']} ({entry['code']}): {entry.get('why') or entry['text']}"
    if entry["kind"] != "reply":
        return ""
    if entry["answer"] == "refusal":
        return f"refused: {entry['stage']}, round {entry['round']} ({entry['code']}): {entry['text']}"
    what = f"{entry['bytes'] / 1e6:.2f} MB of weights" if entry["bytes"] else "no weights"
    metrics = len(entry["metrics"]) or "no"
    return (
        f"left: {what}, {metrics} metric{'' if metrics == 1 else 's'}; receipt in line {entry['index'] + 1} of the log"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
