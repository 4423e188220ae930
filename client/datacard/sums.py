"""The sums that this site's counts went into, as its log has them, and which further ones it goes into.

    masked (the site's words may leave) -> opened (the shares that open the sum may leave) -> told

Each line is on the disk before what it speaks of leaves the site, and the log is chained, signed and known to the
server by its head: to forget one is to break the log. Two sums that differ by one site, or by what one site has
changed, show that site's counts. So for a quarter a site goes into no sum among other sites or with other counts, and
helps to open none over other sites; with the counts of an earlier sum it helps to open none over other sites ever.
Why that is enough, although a site may have been in a sum that it never saw opened: whatever two sums a server opens,
one site that does not collude has revealed its shares for both (2t > n + c, and the sites of both sessions are the
same), and that site asks for the same sites in both. A sum is opened within a day or never, so that none waits until
the quarter is over. A site is its name and its key: under a known name another could stand.
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import GateError
from client.log import site_log_file
from protocol.hashchain import Entry
from protocol.lock import PATIENCE_S, exclusive
from protocol.secagg.session import Session
from protocol.signing import canonical

LINE = "statistics"
"""The kind of these lines."""
MASKED, OPENED, TOLD = "masked", "opened", "told"
LOCK = "sums.lock"
QUARTER = timedelta(days=90)
AGAIN = (
    "this site went into a sum of counts less than 90 days ago, and goes into another one only among the same sites "
    "and with the same counts, since the difference of two sums could show the counts of one site"
)


UNCHANGED = (
    "this site helped to open a sum of these same counts over other sites, and while its counts are unchanged it helps "
    "to open none but over those, since the difference of two sums could show the counts of one site"
)
DAY = timedelta(hours=24)
"""Within which a sum is opened."""
STALE = (
    "this site's counts went into the sum of this session more than 24 hours ago, and it opens none that is older; "
    "start another run"
)


class Sums:
    """Those of the site in the folder `root`; `key` signs its log."""

    def __init__(self, root: Path, key: Ed25519PrivateKey) -> None:
        self._log, self._key = site_log_file(root), key

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time from a check to the line that it lets be written: a site may answer two runs at once.

        Raises:
            GateError: another process has held it for long.
        """
        busy = "another process of this site is at a sum of counts; ask again"
        self._log.path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(self._log.path.with_name(LOCK), lambda text: GateError("statistics_busy", busy), PATIENCE_S):
            yield

    def check_masked(self, session: Session, numbers: Sequence[int]) -> None:
        """Return only if the site may go into the sum of this session with these counts.

        Raises:
            GateError: it went into another one less than a quarter ago.
        """
        mine = (list(session.sites), dict(session.keys), self.digest_of(numbers))
        if any((line["sites"], line.get("keys"), line["counts"]) != mine for line in self._since(QUARTER, MASKED)):
            raise GateError("policy_statistics_again", AGAIN)

    def check_opened(self, session: Session, survivors: Sequence[str]) -> None:
        """Return only if the site may help to open the sum of this session, which it has masked, over these sites.

        Raises:
            GateError: it masked it more than a day ago, it helped to open one over others less than a quarter ago, or
                ever one over others with the same counts.
        """
        if all(line["session"] != session.digest for line in self._since(DAY, MASKED)):
            raise GateError("statistics_stale", STALE)
        keys = {site: session.keys[site] for site in survivors}
        if any((line["sites"], line.get("keys")) != (list(survivors), keys) for line in self._since(QUARTER, OPENED)):
            raise GateError("policy_statistics_again", AGAIN)
        counts = {line["session"]: line["counts"] for line in self._lines(MASKED)}
        others = (line for line in self._lines(OPENED) if line["sites"] != list(survivors))
        if any(counts[line["session"]] == counts[session.digest] for line in others):
            raise GateError("policy_statistics_again", UNCHANGED)

    def note_masked(self, session: Session, numbers: Sequence[int]) -> None:
        """Note that the site's counts go into the sum of this session, unless that was noted before."""
        salt = self._salt or secrets.token_hex(16)
        facts = {"keys": dict(session.keys), "salt": salt, "counts": _digest(salt, numbers)}
        self._note(MASKED, session, sites=list(session.sites), **facts)

    def note_opened(self, session: Session, survivors: Sequence[str]) -> None:
        """Note that the site helps to open the sum over these sites, unless that was noted before."""
        keys = {site: session.keys[site] for site in survivors}
        self._note(OPENED, session, sites=list(survivors), keys=keys)

    def note_told(self, run_id: str, published: str) -> bool:
        """Note the digest of what was told of the sum of a run first. Whether this is it."""
        before = [line["published"] for line in self._lines(TOLD) if line["run"] == run_id]
        if not before:
            self._log.append(self._key, {"kind": LINE, "step": TOLD, "run": run_id, "published": published})
        return published in (before or [published])

    def digest_of(self, numbers: Sequence[int]) -> str:
        """SHA-256 in hex over the site's counts and what it has drawn with its first ones; both stay in its log."""
        return _digest(self._salt, numbers)

    @property
    def _salt(self) -> str:
        """Without it the server, which knows the log's head, could try out counts until one of them fits."""
        return next((str(line.get("salt", "")) for line in self._lines(MASKED)), "")

    def opened(self, run_id: str) -> tuple[list[str], str]:
        """The sites whose sum of this run was opened with this site's help, and the digest of its own counts in it.

        Raises:
            GateError: the last sum that this site helped to open was none of this run.
        """
        last = next((line for line in reversed(list(self._lines(OPENED)))), None)
        if last is None or last["run"] != run_id:
            raise GateError(
                "statistics_unknown",
                "the last sum of counts that this site helped to open is not of this run, so it takes in nothing of it",
            )
        mine = next(line for line in self._lines(MASKED) if line["session"] == last["session"])
        return list(last["sites"]), str(mine["counts"])

    def _note(self, step: str, session: Session, **facts: Any) -> None:
        if any(line["session"] == session.digest for line in self._lines(step)):
            return
        place = {"run": session.run_id, "round": session.round, "attempt": session.attempt, "session": session.digest}
        self._log.append(self._key, {"kind": LINE, "step": step, **place, **facts})

    def _since(self, ago: timedelta, step: str) -> Iterator[Entry]:
        """Lines of less than so long ago; where the clock was put back, those that lie ahead of it too."""
        since = datetime.now(UTC) - ago
        return (line for line in self._lines(step) if datetime.fromisoformat(line["time"]) > since)

    def _lines(self, step: str) -> Iterator[Entry]:
        return (line for line in self._log.entries() if line["kind"] == LINE and line["step"] == step)


def _digest(salt: str, numbers: Sequence[int]) -> str:
    return hashlib.sha256(canonical({"salt": salt, "counts": list(numbers)})).hexdigest()
