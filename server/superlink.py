"""Flower's SuperLink, whose database waits a minute for a writer before it: `python -Pm server.superlink ARGUMENTS`.

Flower lets SQLite wait for five seconds. When a site confirms that it has an order, the SuperLink deletes the order's
pieces in one transaction, which for hundreds of megabytes takes longer on a busy machine; whoever writes meanwhile, a
site that sends a piece or the ServerApp that looks for replies, is told that the database is locked, and the run ends.
"""

from flwr.supercore import sql_mixin
from flwr.superlink.cli import flower_superlink

BUSY_TIMEOUT_MS = 60_000


def wait_for_writers() -> None:
    """Let every connection that is opened from now on wait `BUSY_TIMEOUT_MS` for the lock of its database."""
    names = vars(sql_mixin)
    pragmas = dict(names["SQLITE_PRAGMAS"]) | {"busy_timeout": str(BUSY_TIMEOUT_MS)}
    names["SQLITE_PRAGMAS"] = tuple(pragmas.items())


if __name__ == "__main__":
    wait_for_writers()
    flower_superlink()
