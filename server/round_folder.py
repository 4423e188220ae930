"""A round at work, as it lies on the disk: which one it is, whether its deadline is over, and what has come of it.

    open -> (a reply is spooled, again and again) -> closed -> judged, merged, noted in the journal, saved -> cleared

After a crash an open round asks whoever is not in the spool, and a closed one asks nobody: all that comes after the
deadline follows from what lies here, and so comes to the same bits.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mumc_model.data.files import write_atomically
from protocol.messages import Order
from server.errors import OutputError, disk_error
from server.spool import Spool
from server.tally import Tally

OPEN, CLOSED = "open", "closed"
_VERSION = 1


class RoundFolder:
    """The folder `round` of a run's output folder.

    Args:
        folder: Where it lies; made with the first round, and gone when a run has ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "updates")
        self._state, self._masks = folder / "state.json", folder / "masks.json"

    def begin(self, order: Order) -> None:
        """Open an attempt at a round. Updates of the same round stay; what is of another goes, and all masked words.

        Raises:
            OutputError: the disk refuses, or keeps what should go.
        """
        state = self._read()
        if _place(state) == _order(order) and state["attempt"] == order.attempt:
            return
        if _place(state) != _order(order) or self._masks.is_file():
            self.clear()
            if self.spool.sites():
                raise OutputError(f"{self.folder} cannot be emptied, and holds another round's updates; delete it")
        self._write(order, OPEN, Tally())

    def close(self, order: Order, tally: Tally) -> None:
        """End the attempt's deadline: nothing that comes later is in it.

        Raises:
            OutputError: the disk refuses.
        """
        self._write(order, CLOSED, tally)

    def closed(self, order: Order) -> Tally | None:
        """What came of an attempt whose deadline is over; None where it is not.

        Raises:
            OutputError: an update that was there at the deadline is gone.
        """
        state = self._read()
        if _place(state) != _order(order) or (state["attempt"], state["phase"]) != (order.attempt, CLOSED):
            return None
        reports = self.spool.reports()
        if gone := sorted(set(state["sites"]) - reports.keys()):
            raise OutputError(
                f"the updates of {', '.join(gone)} are gone from {self.spool.folder}, and the round was closed with "
                f"them; put them back, or delete {self.folder}, and the attempt asks all sites anew"
            )
        return Tally(
            reports={site: report for site, report in reports.items() if site in state["sites"]},
            refused=dict(state["refused"]),
            reasons=dict(state["reasons"]),
            bytes_up=state["bytes_up"],
            bytes_down=state["bytes_down"],
        )

    def attempt(self, round: int) -> int:
        """The attempt at the round that was at work; 0 where none was."""
        state = self._read()
        return int(state["attempt"]) if state and state["round"] == round else 0

    def keep_masks(self, values: Mapping[str, Any]) -> None:
        """Keep how far a session of secure aggregation has come.

        Raises:
            OutputError: the disk refuses.
        """
        self._put(self._masks, values)

    def masks(self) -> dict[str, Any] | None:
        """How far the session of the attempt at work had come; None where there was none."""
        return dict(_json(self._masks)) if self._masks.is_file() else None

    def clear(self) -> None:
        """Forget the round; what sites have sent goes first, so that none of it is taken for another attempt's."""
        self.spool.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, order: Order, phase: str, tally: Tally) -> None:
        state = {
            "version": _VERSION,
            "run_id": order.run_id,
            "action": order.action,
            "round": order.round,
            "attempt": order.attempt,
            "phase": phase,
            "sites": sorted(tally.reports),
            "refused": tally.refused,
            "reasons": tally.reasons,
            "bytes_up": tally.bytes_up,
            "bytes_down": tally.bytes_down,
        }
        self._put(self._state, state)

    def _put(self, path: Path, values: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, json.dumps(values, sort_keys=True).encode())
        except OSError as error:
            raise disk_error(path, error) from error

    def _read(self) -> dict[str, Any]:
        if not self._state.is_file():
            return {}
        state = _json(self._state)
        if state.get("version") != _VERSION:
            raise OutputError(f"{self._state} is of another version; go on with the fedmumc that wrote it")
        return state


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); delete its folder, and the round begins anew") from error


def _place(state: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(state.get(name) for name in ("run_id", "action", "round"))


def _order(order: Order) -> tuple[str, str, int]:
    return order.run_id, order.action, order.round
