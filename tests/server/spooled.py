"""Updates in a spool, from plain arrays."""

from protocol.messages import Report
from server.spool import Spool


def report(site, examples=1):
    return Report(run_id="run", round=1, attempt=1, site=site, examples=examples, metrics={}, base_digest="0" * 64)


def spooled(folder, rows, names=None):
    """The updates of these rows (an array, or packed arrays by type), in their order, mapped from the disk."""
    packed = [row if isinstance(row, dict) else {row.dtype.name: row} for row in rows]
    spool = Spool(folder)
    names = names or [f"site-{place:03}" for place in range(len(packed))]
    for name, arrays in zip(names, packed, strict=True):
        spool.put(report(name), arrays)
    found = {update.site: update for update in spool.updates(names)}
    return [found[name] for name in names]
