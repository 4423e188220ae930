"""Flower's SuperLink, whose database waits a minute for a writer before it: `python -Pm server.superlink ARGUMENTS`.

Flower lets SQLite wait for five seconds. On a busy machine somebody held the lock longer while a site fetched an order
of 400 MB, likely to delete the order's pieces, which is one transaction; whoever wrote meanwhile was told that the
database is locked, and that answer to the ServerApp ended its run.
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
