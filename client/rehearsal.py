"""What came of a rehearsal: the site's own log, followed until the reply has left."""

from time import monotonic

from client.follow import Follower
from protocol.hashchain import Entry

STAGE = "train.rehearse"
LINGER_S = 3.0
"""The SuperNode hands the reply on after it is in the log."""


class Rehearsal:
    """Waits at most `wait_s` seconds for the order to rehearse and the reply of the site `name`."""

    def __init__(self, follower: Follower, name: str, wait_s: float) -> None:
        self._follower, self._name, self._wait_s = follower, name, wait_s
        self._deadline = monotonic() + wait_s
        self._reply: Entry | None = None

    def over(self) -> bool:
        """Whether the reply has left, or the time is up."""
        for entry in self._follower.step():
            if entry.get("stage") == STAGE and entry["kind"] != "order":
                self._reply = entry
                self._deadline = min(self._deadline, monotonic() + LINGER_S)
        return monotonic() >= self._deadline

    @property
    def passed(self) -> bool:
        """Whether a report has left."""
        return self._reply is not None and self._reply.get("answer") == "report"

    @property
    def verdict(self) -> str:
        """What came of it, in one line."""
        if self._reply is None and monotonic() < self._deadline:
            return "stopped before an order to rehearse was answered"
        if self._reply is None:
            return (
                f"no order to rehearse came within {self._wait_s:g} s. If the site is connected, the operator asks it "
                f"with: mumc-server rehearse DIR {self._name}"
            )
        if not self.passed:
            return f"refused ({self._reply['code']}): {self._reply['text']}"
        return (
            f"rehearsed: {self._reply['bytes'] / 1e6:.1f} MB of weights left, trained on synthetic data alone. This "
            "site can take part: mumc-site start"
        )
