"""The site's part in the statistics: its counts go into a sum under masks, and what is published of it comes back.

The counts are those of the data card over the labels that everyone knows, exact: what hides them is the sum. The stages
are those of training (`client/secagg.py`); here the site holds the session to other terms, and keeps to what its log
says of earlier sums (`client/datacard/sums.py`).
"""

from pathlib import Path

import numpy as np

from client.config import RunLimits
from client.datacard.facts import DataCard
from client.datacard.labels import in_fixed_labels
from client.datacard.reading import read_card
from client.datacard.skew import FILE
from client.datacard.stamp import FOLDER
from client.datacard.sums import Sums
from client.errors import GateError
from client.gate import check_records
from client.secagg import Arrays, Masking, check_cover
from client.secagg_store import SecaggStore, end_other_runs
from mumc_model.data.files import write_atomically
from mumc_model.errors import DataError
from protocol.errors import MessageError
from protocol.labels import TABLES
from protocol.messages import Report
from protocol.secagg import site as stages
from protocol.secagg.errors import SessionError
from protocol.secagg.messages import Accord, Inbox, Survivors
from protocol.secagg.session import LEAST_SITES, Session
from protocol.secagg.state import session_of
from protocol.signing import payload_hash
from protocol.statistics import DIGEST, LARGEST, VALUES, Statistics, fixed_point, flat, folded
from protocol.suppression import SMALLEST, rounded_down

REFUSED = "federation-refused.json"
"""Beside the data card: the last statistics that came and were not believed. No card looks at it."""


class Counting(Masking):
    """One order of the statistics at a site whose limits allow them (`client/gate.py`)."""

    def advertise(self) -> Report:
        """Fresh keys for a session over the labels that this site knows too; see `Masking.advertise`.

        Raises:
            GateError: it is over others.
            GateError, SecaggError, StaleError: see there.
        """
        # Before it is compared with the order: a session over other labels would pass for one of training.
        check_labels(Session.from_dict(self._order.masking))
        return super().advertise()

    def _accept(self, session: Session, limits: RunLimits) -> None:
        """Return only if the site's counts may go into the sum of this session. A training at work goes on beside it.

        Raises:
            GateError: too few sites, too many that collude, other labels, or a sum too many.
            SessionError: the sites have weights, or the format is not the one that sums exactly.
        """
        check_session(session, limits)
        card = own_card(self._root)
        check_records(limits, max(card.captions.count, card.questions.count))
        with self._sums.alone():
            self._sums.check_masked(session, own_numbers(card))
        # One that was left before its sum was opened could be opened later, when the log says less against it.
        end_other_runs(self._root, self._order.run_id, counting=True)

    @property
    def _sums(self) -> Sums:
        return Sums(self._root, self._keys.signing())

    def count(self) -> tuple[Report, Arrays]:
        """The site's counts as masked words. The log has it before they leave; they are made once.

        Raises:
            GateError: the counts are too large, or have changed, or a sum too many is asked for.
            SecaggError: see `protocol.secagg.site.mask`.
        """
        state, inbox = self._given(Inbox)
        session = session_of(state)

        def counts() -> Arrays:
            numbers = own_numbers(own_card(self._root))
            with self._sums.alone():
                self._sums.check_masked(session, numbers)
                self._sums.note_masked(session, numbers)
            return {"float64": np.array(numbers, np.float64)}

        step = stages.mask(state, inbox, key=self._keys.signing(), update=counts)
        assert not step.clipped, "no count is above the clip range"
        return self._masked(state, step, {})

    def agree(self) -> Report:
        """This site's word on whose counts are in the sum.

        Raises:
            GateError: it helped to open a sum over other sites, or its counts left more than a day ago.
            SecaggError: see `protocol.secagg.site.agree`.
        """
        state, survivors = self._given(Survivors)
        step = stages.agree(state, survivors, key=self._keys.signing())
        self._sums.check_opened(session_of(state), survivors.sites)
        return self._answer(state, step)

    def unmask(self) -> Report:
        """The shares that open the sum; the log has it before they leave.

        Raises:
            GateError: in a session of another run it has opened another sum since it agreed, or a day has passed.
            SecaggError, SignatureError: see `protocol.secagg.site.unmask`.
        """
        state, accord = self._given(Accord)
        step = stages.unmask(state, accord, key=self._keys.signing())
        session, survivors = session_of(state), state["public"]["survivors"]
        with self._sums.alone():
            self._sums.check_opened(session, survivors)
            self._sums.note_opened(session, survivors)
        report = self._answer(state, step)
        self._store.forget_arrays()
        return report

    def take_in(self) -> Report:
        """That statistics of the last sum have come. The reply says nothing of whether they are believed.

        A server may tell what it likes. If it heard what the site holds against that, each order would be a question
        about the site's exact counts. So the reply, the chained log, whose head the server knows, and what is written
        are the same in every case but for the name of a file; only `state/site.log` tells.

        Raises:
            GateError: the last sum that this site helped to open was none of this run.
            MessageError: they are no statistics.
        """
        order, told = self._order, Statistics.from_dict(self._order.masking)
        if told.run_id != order.run_id:
            raise MessageError("the statistics name another run than the order")
        sites, mine = self._sums.opened(told.run_id)
        new = self._sums.note_told(told.run_id, payload_hash(told.to_dict()))
        # No `and`: every check is made, whatever the others say.
        kept = all([new, told.sites == len(sites), self._no_less(told, mine)])
        name, words = (FILE, "kept") if kept else (REFUSED, "not believed: fewer than here, or told otherwise before")
        write_atomically(self._root / FOLDER / name, told.to_file())
        self._log.info("the statistics of run %s came and are %s; see %s", told.run_id, words, FOLDER / name)
        SecaggStore.of(self._root, told.run_id).end()
        return Report(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            site=self._join.site,
            examples=0,
            metrics={},
            base_digest=order.base_digest,
        )

    def _no_less(self, told: Statistics, mine: str) -> bool:
        """Whether no count is below what this site alone has put in, as far as that is still known here."""
        try:
            numbers = own_numbers(own_card(self._root))
        except (DataError, GateError):
            return True
        own = folded(numbers)
        less = sum(
            count < rounded_down(own[name][label].count, SMALLEST)
            for name, cells in told.counts.items()
            for label, count in cells.items()
        )
        return not less or self._sums.digest_of(numbers) != mine


def check_session(session: Session, limits: RunLimits) -> None:
    """Return only if a session sums counts exactly, and covers the site as it asks.

    Raises:
        GateError, SessionError: it does not.
    """
    check_cover(session, limits)
    fewest = max(limits.min_sites, LEAST_SITES)
    if session.threshold < fewest:
        raise GateError(
            "policy_min_sites",
            f"the session may open a sum of {session.threshold} sites, and this site hides among no fewer than "
            f"{fewest} (policy.runs.min_sites)",
        )
    if set(session.weights.values()) != {1}:
        raise SessionError("the session weighs the counts of its sites; every site of a sum of counts has weight 1")
    if session.fixed_point != fixed_point(len(session.sites), session.threshold):
        raise SessionError("the session's format is not the one in which counts are summed exactly")


def check_labels(session: Session) -> None:
    """Return only if a session is over the labels that this site knows.

    Raises:
        GateError: it is not.
    """
    if (session.schema_digest, session.base_digest, session.values) != (DIGEST, DIGEST, VALUES):
        raise GateError(
            "statistics_labels", "the session sums other labels than this site knows; install the same fedmumc"
        )


def own_card(root: Path) -> DataCard:
    """The site's card.

    Raises:
        DataError: there is none that can be read.
    """
    card = read_card(root)
    if card is None:
        raise DataError(f"the site has no data card; make it with: mumc-site card {root}")
    return card


def own_numbers(card: DataCard) -> list[int]:
    """What this site puts into a sum.

    Raises:
        GateError: a label counts more than the sum holds.
    """
    tables = {f"{table.of} by {table.by}": in_fixed_labels(table) for table in card.tables}
    if any(max(cell.count, cell.units) > LARGEST for cells in tables.values() for cell in cells.values()):
        raise GateError(
            "statistics_too_large",
            f"a label counts more than {LARGEST:,} records here, and the sum holds no more from one site",
        )
    assert tables.keys() == TABLES.keys(), "a card has every table"
    return flat(tables)
