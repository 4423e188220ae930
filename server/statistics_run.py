"""A run that sums the sites' counts under masks, publishes what may be published of the sum, and tells the sites.

    sessions, until one is opened -> journal -> statistics.json -> every site of the sum -> result

No model, no weights, no training: a session is over the fixed labels (`protocol/statistics.py`). The exact sum is
written nowhere; until `statistics.json` is in its place it follows, again, from the round's folder.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from mumc_model.errors import ConfigError
from protocol.bundle import installed_digest
from protocol.errors import MessageError, UnexpectedWeightsError
from protocol.lock import exclusive
from protocol.messages import STATISTICS, STATISTICS_ACTIONS, Order, Report
from protocol.secagg.errors import RangeError, SecaggError
from protocol.secagg.session import LEAST_SITES, Session
from protocol.statistics import DIGEST, VALUES, Statistics, fixed_point, total
from server.checkpoint import write_whole
from server.config import RunConfig
from server.errors import FederationError, OutputError, ServerError, VoidRoundError
from server.exchange import wait_for_nodes
from server.inquiry import Inquiry
from server.journal import Journal, RoundRecord
from server.output import JOURNAL, LOCK, RESULT, ROUND, own_folder, result_json, write_config
from server.report_page import write_reports
from server.round_folder import RoundFolder
from server.seal import Post
from server.secagg import OFFLINE, MaskedRound, Terms
from server.tally import Tally

FILE = "statistics.json"
"""In the run's folder: what was published."""
_log = logging.getLogger("fedmumc.server")


def run_statistics(
    grid: Grid,
    config: RunConfig,
    on_round: Callable[[RoundRecord], None] = lambda record: None,
    post: Post | None = None,
    *,
    resume: bool = False,
) -> Statistics:
    """What was published; `on_round` sees each attempt as soon as it is on the disk.

    Args:
        grid: Flower's grid.
        config: The run, whose `federation.final` is `statistics`.
        on_round: Shows an attempt.
        post: Signs orders and checks replies; sums are taken over enrolled sites alone.
        resume: Whether to go on where another process has ended the run that lies in the output folder.

    Raises:
        ConfigError: there are no enrolled sites, or too few.
        OutputError: the output folder holds another run, another process plays this one, or the disk refuses.
        FederationError: too few sites came or answered; nothing was opened, or nothing of it published.
    """
    if post is None:
        raise ConfigError("statistics are summed over enrolled sites; run them with mumc-server statistics")
    terms = counting_terms(config, post)
    folder = own_folder(Path(config.output_dir), resume=resume)
    with exclusive(folder / LOCK, OutputError, patience_s=1.0):
        own_folder(folder, resume=resume)
        return _Run(grid, config, folder, post, terms).play(on_round)


def counting_terms(config: RunConfig, post: Post) -> Terms:
    """What the sessions have in common: every site counts once, and no sum is over fewer than three.

    Raises:
        ConfigError: fewer sites take part than a sum needs.
    """
    terms = Terms.of(config, post)
    terms = replace(terms, weights=dict.fromkeys(terms.keys, 1), min_sites=max(LEAST_SITES, terms.min_sites))
    if len(terms.keys) < terms.fewest:
        raise ConfigError(
            f"a sum of counts takes at least {terms.fewest} sites, of which {terms.colluding} may collude, and "
            f"{len(terms.keys)} take part; enrol more"
        )
    return terms


def counting_session(terms: Terms, order: Order) -> Session:
    """The session of an order, always over all sites that take part: those that are away count as dropped out.

    So the sessions of all attempts have the same sites, without which no site goes into a second sum.
    """
    sites, threshold = len(terms.keys), terms.threshold(len(terms.keys))
    return Session(
        run_id=order.run_id,
        round=order.round,
        attempt=order.attempt,
        keys=terms.keys,
        weights=terms.weights,
        colluding=terms.colluding,
        threshold=threshold,
        schema_digest=DIGEST,
        base_digest=DIGEST,
        values=VALUES,
        fixed_point=fixed_point(sites, threshold),
    )


class _Run:
    """One process's part in a run."""

    def __init__(self, grid: Grid, config: RunConfig, folder: Path, post: Post, terms: Terms) -> None:
        self._grid, self._config, self._folder, self._post, self._terms = grid, config, folder, post, terms
        self._journal, self._rounds = Journal(folder / JOURNAL), RoundFolder(folder / ROUND)
        self._inquiry = Inquiry(grid, config, post)
        self._met = False

    def play(self, on_round: Callable[[RoundRecord], None]) -> Statistics:
        write_config(self._folder, self._config)
        published = read_statistics(self._folder)
        try:
            if published is None:
                published = self._sum(on_round)
            self._rounds.clear()
            self._finish(self._tell(published))
        finally:
            self._report()
        return published

    def _sum(self, on_round: Callable[[RoundRecord], None]) -> Statistics:
        """The published part of the first sum that is opened.

        Raises:
            FederationError: `federation.attempts` in a row were void, or one was after sites had revealed.
        """
        if self._journal.given_up(1):
            self._rounds.clear()
            raise FederationError(
                "the sites have revealed what opens the sum of this run, and it came to nothing; start another run"
            )
        for attempt in count(self._next_attempt()):
            order = self._order(1, attempt, STATISTICS_ACTIONS["advertise"], {"stage": "advertise"})
            try:
                record, published = self._attempt(order)
            except VoidRoundError as error:
                on_round(error.record)
                if error.over or attempt >= self._config.federation.attempts:
                    raise
            else:
                on_round(record)
                return published
        raise AssertionError("attempts are counted without end")

    def _attempt(self, order: Order) -> tuple[RoundRecord, Statistics]:
        started = time.perf_counter()
        self._rounds.begin(order)
        online = {self._post.site(node): node for node in self._nodes()}
        round = MaskedRound.open(
            self._rounds,
            partial(counting_session, self._terms, order),
            order=order,
            nodes=online,
            ask=partial(self._inquiry.ask, base={}),
            stage_timeout_s=self._terms.settings.stage_timeout_s,
            mask_timeout_s=self._terms.settings.stage_timeout_s,
            actions=STATISTICS_ACTIONS,
        )
        try:
            merged = round.play()
            sites = len(merged.survivors)
            summed = total(merged.mean, sites)
        except SecaggError as error:
            round.tally.reports.clear()
            noted = self._noted(self._record(order, round, started, void=True))
            # Masked words and shares serve nothing any more, and are what a sum could still be opened with.
            self._rounds.clear()
            rest = "Nothing is published" if isinstance(error, RangeError) else "Nothing was opened"
            words = self._terms.why_void(round, error, rest)
            raise VoidRoundError(words, noted, over=round.revealed) from None
        made = datetime.now(UTC).date().isoformat()
        published = Statistics.of(summed, run_id=order.run_id, sites=sites, made=made)
        noted = self._noted(self._record(order, round, started))
        write_whole(self._folder / FILE, published.to_file())
        return noted, published

    def _tell(self, published: Statistics) -> Tally:
        """What came of telling the sites of the sum; one that is away keeps what it was told before."""
        sites = next(record.merged for record in reversed(self._journal.records) if record.sites_merged)
        online = {self._post.site(node): node for node in self._post.enrolled(list(self._grid.get_node_ids()))}
        order = self._order(2, 1, STATISTICS, published.to_dict())
        nodes = [online[site] for site in sites if site in online]
        timeout_s = self._terms.settings.stage_timeout_s
        tally = self._inquiry.ask(order, nodes, _check_receipt, base={}, timeout_s=timeout_s)
        tally.refused |= dict.fromkeys(set(sites) - online.keys(), OFFLINE)
        return tally

    def _order(self, round: int, attempt: int, action: str, masking: Mapping[str, Any]) -> Order:
        return Order(
            run_id=self._config.run_id,
            round=round,
            attempt=attempt,
            action=action,
            recipe={},
            vocabulary=(),
            first_step=0,
            steps=0,
            total_steps=0,
            seed=0,
            base_digest=DIGEST,
            masking=masking,
        )

    def _next_attempt(self) -> int:
        """The attempt that an earlier process was at, or the one after it where that has ended void."""
        at_work = self._rounds.attempt(1)
        noted = self._journal.of(1, at_work)
        if at_work and (noted is None or noted.sites_merged):
            return at_work
        return 1 + max((record.attempt for record in self._journal.records), default=0)

    def _nodes(self) -> list[int]:
        federation = self._config.federation
        nodes = wait_for_nodes(
            self._grid,
            wanted=len(self._terms.keys),
            least=self._terms.threshold(len(self._terms.keys)),
            wait_s=federation.wait_s,
            rejoin_s=federation.rejoin_s if self._met else None,
            enrolled=self._post.enrolled,
        )
        self._met = True
        return nodes

    def _record(self, order: Order, round: MaskedRound, started: float, *, void: bool = False) -> RoundRecord:
        tally = round.tally
        return RoundRecord(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            sites_expected=len(self._terms.keys),
            sites_merged=0 if void else len(tally.reports),
            merged=[] if void else sorted(tally.reports),
            refused=dict(sorted(tally.refused.items())),
            reasons=dict(sorted(tally.reasons.items())),
            examples=tally.examples,
            losses={},
            update_norm=0.0,
            bytes_up=tally.bytes_up,
            bytes_down=tally.bytes_down,
            seconds=time.perf_counter() - started,
            lr=self._config.strategy.lr,
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            secagg=round.facts(),
        )

    def _noted(self, record: RoundRecord) -> RoundRecord:
        """The record as the journal has it: an earlier process may have noted this very attempt."""
        noted = self._journal.of(record.round, record.attempt)
        if noted is None:
            self._journal.append(record)
        return noted or record

    def _finish(self, tally: Tally) -> None:
        result = result_json(
            self._config,
            self._config.run_id,
            self._journal.records,
            tally,
            enrolled=self._post.names,
            code=installed_digest(),
        )
        write_whole(self._folder / RESULT, result)

    def _report(self) -> None:
        try:
            write_reports(self._folder, self._post.names)
        except ServerError as error:
            _log.warning("%s; mumc-server report %s writes it anew", error, self._folder)


def read_statistics(folder: Path) -> Statistics | None:
    """What a run has published; None where it has not.

    Raises:
        OutputError: the file is not what it wrote.
    """
    path = folder / FILE
    try:
        return Statistics.from_file(path.read_bytes()) if path.is_file() else None
    except (OSError, MessageError) as error:
        raise OutputError(f"{path} cannot be read ({error}); it is damaged or of another version") from None


def _check_receipt(report: Report, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    if arrays or report.metrics:
        raise UnexpectedWeightsError("this reply says that the statistics have come, and carries nothing else")
