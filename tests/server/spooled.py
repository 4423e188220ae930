"""Updates from plain arrays: in a spool on the disk, or, where a test needs many, in memory."""

from pathlib import Path

from protocol.messages import Report
from server.spool import Spool, Update, block_peaks


def report(site, examples=1):
    return Report(run_id="run", round=1, attempt=1, site=site, examples=examples, metrics={}, base_digest="0" * 64)


def spooled(folder, rows, names=None):
    """The updates of these rows (an array, or packed arrays by type), in their order, mapped from the disk."""
    spool, names = Spool(folder), names or _names(rows)
    for name, row in zip(names, rows, strict=True):
        spool.put(report(name), _packed(row))
    found = {update.site: update for update in spool.updates(names)}
    return [found[name] for name in names]


def in_memory(rows, names=None):
    """The same updates without a file."""
    return [
        Update(
            report=report(name),
            late=0,
            arrays=_packed(row),
            peaks={dtype: block_peaks(flat) for dtype, flat in _packed(row).items()},
        )
        for name, row in zip(names or _names(rows), rows, strict=True)
    ]


def resident(folder):
    """Bytes of the folder's files that this process has in memory through maps."""
    held, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            held += int(line.split()[1]) * 1024
    return held


def _names(rows):
    return [f"site-{place:03}" for place in range(len(rows))]


def _packed(row):
    return row if isinstance(row, dict) else {row.dtype.name: row}
