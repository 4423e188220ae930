"""The sums that this site's counts went into, as its log has them, and which further ones it goes into.

    masked (the site's words may leave) -> opened (the shares that open the sum may leave) -> told

Each line is on the disk before what it speaks of leaves the site, and the log is chained, signed and known to the
server by its head: to forget one is to break the log. Two sums that differ by one site, or by what one site has
changed, show that site's counts. So for a quarter a site goes into no sum among other sites or with other counts, and
helps to open none over other sites. Why that is enough, although a site may have been in a sum that it never saw
opened: whatever two sums a server opens, one site that does not collude has revealed its shares for both (2t > n + c,
and the sites of both sessions are the same), and that site asks for the same sites in both.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import GateError
from client.log import site_log_file
from protocol.hashchain import Entry
from protocol.secagg.session import Session
from protocol.signing import canonical

LINE = "statistics"
"""The kind of these lines."""
MASKED, OPENED, TOLD = "masked", "opened", "told"
QUARTER = timedelta(days=90)
AGAIN = (
    "this site went into a sum of counts less than 90 days ago, and goes into another one only among the same sites "
    "and with the same counts, since the difference of two sums could show the counts of one site"
)


class Sums:
    """Those of the site in the folder `root`; `key` signs its log."""

    def __init__(self, root: Path, key: Ed25519PrivateKey) -> None:
        self._log, self._key = site_log_file(root), key

    def check_masked(self, session: Session, numbers: Sequence[int]) -> None:
        """Return only if the site may go into the sum of this session with these counts.

        Raises:
            GateError: it went into another one less than a quarter ago.
        """
        mine = (list(session.sites), digest_of(numbers))
        if any((line["sites"], line["counts"]) != mine for line in self._recent(MASKED)):
            raise GateError("policy_statistics_again", AGAIN)

    def check_opened(self, survivors: Sequence[str]) -> None:
        """Return only if the site may help to open the sum over these sites.

        Raises:
            GateError: it helped to open one over others less than a quarter ago.
        """
        if any(line["sites"] != list(survivors) for line in self._recent(OPENED)):
            raise GateError("policy_statistics_again", AGAIN)

    def note_masked(self, session: Session, numbers: Sequence[int]) -> None:
        """Note that the site's counts go into the sum of this session, unless that was noted before."""
        self._note(MASKED, session, sites=list(session.sites), counts=digest_of(numbers))

    def note_opened(self, session: Session, survivors: Sequence[str]) -> None:
        """Note that the site helps to open the sum over these sites, unless that was noted before."""
        self._note(OPENED, session, sites=list(survivors))

    def note_told(self, run_id: str, published: str) -> None:
        """Note what was told of the sum of a run, by its digest.

        Raises:
            GateError: something else was told before.
        """
        before = [line["published"] for line in self._lines(TOLD) if line["run"] == run_id]
        if any(other != published for other in before):
            raise GateError("statistics_wrong", "this site was told other statistics of the same run before")
        if not before:
            self._log.append(self._key, {"kind": LINE, "step": TOLD, "run": run_id, "published": published})

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

    def _recent(self, step: str) -> Iterator[Entry]:
        """Lines of less than a quarter ago; where the clock was put back, those that lie ahead of it too."""
        since = datetime.now(UTC) - QUARTER
        return (line for line in self._lines(step) if datetime.fromisoformat(line["time"]) > since)

    def _lines(self, step: str) -> Iterator[Entry]:
        return (line for line in self._log.entries() if line["kind"] == LINE and line["step"] == step)


def digest_of(numbers: Sequence[int]) -> str:
    """SHA-256 in hex over a site's counts; it stays in the site's log."""
    return hashlib.sha256(canonical({"counts": list(numbers)})).hexdigest()
