"""One round: orders, replies one by one, verify, decode, spool, judge, merge, server optimiser, journal, checkpoint."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from protocol.codec import digest, pack, unpack
from protocol.compression import Codec, decode
from protocol.messages import Order, Report
from protocol.schema import WeightSchema
from protocol.secagg.errors import SecaggError
from protocol.secagg.packed import unpack_mean
from server.checkpoint import WEIGHTS, Checkpoint, last_step, save_round
from server.config import RunConfig
from server.errors import FederationError, OutputError, VoidRoundError
from server.exchange import AGAIN, GONE
from server.inquiry import Inquiry
from server.journal import Journal, RoundRecord, name_lost
from server.judge import Verdict, judge
from server.merge import all_finite, difference, norm
from server.optimizer import ServerOptimizer
from server.round_folder import RoundFolder
from server.rules import merge
from server.screen import check_examples, check_finite
from server.seal import Post
from server.secagg import MaskedRound, Terms
from server.spool import Update
from server.tally import Tally

Array = np.ndarray[Any, Any]


class Strategy:
    """The global weights of one run, and how a round changes them.

    Args:
        grid: Flower's grid.
        config: The run.
        start: The weights to begin with, and what an earlier process of the same run has saved beside them.
        journal: Where each round is recorded.
        rounds: Where the round at work lies.
        post: Signs orders and checks replies; None in a trial on one machine.
        masks: What sessions of secure aggregation have in common; None for plain rounds.
    """

    def __init__(
        self,
        grid: Grid,
        config: RunConfig,
        start: Checkpoint,
        journal: Journal,
        rounds: RoundFolder,
        post: Post | None = None,
        masks: Terms | None = None,
    ) -> None:
        self.schema = WeightSchema.of(start.weights)
        self.packed = pack(start.weights, self.schema)
        self._named: str | None = None
        self._config, self._run_id, self._journal = config, start.run_id, journal
        self._folder, self._rounds = journal.path.parent, rounds
        self._optimizer = ServerOptimizer(config.strategy, self.schema.flat_sizes)
        if start.round:
            self._resume_optimizer(start)
        self._post, self._masks, self._inquiry = post, masks, Inquiry(grid, config, post)

    def _resume_optimizer(self, start: Checkpoint) -> None:
        try:
            self._optimizer.load_state_dict(start.moments)
        except ValueError as error:
            raise OutputError(f"the moments of round {start.round} in {self._folder} cannot be used: {error}") from None

    @property
    def digest(self) -> str:
        """The digest that names the weights to the sites."""
        if self._named is None:
            self._named = digest(self.packed, self.schema)
        return self._named

    @property
    def weights(self) -> dict[str, Array]:
        """The shared weights by name, as views."""
        return unpack(self.packed, self.schema)

    def play_round(self, order: Order, nodes: Callable[[], Sequence[int]]) -> RoundRecord:
        """The record of one round of `train.pretrain`; the global weights have changed and lie on the disk.

        What an earlier process has left of the same attempt is taken up where it ended.

        Args:
            order: What is asked.
            nodes: Waits for the sites and gives the nodes that are there; called only where somebody is to be asked.

        Raises:
            VoidRoundError: too few updates could be merged; the weights are as before.
            FederationError: the step is not finite; the weights are as before.
            OutputError: the disk refuses; the last checkpoint stands.
        """
        started = time.perf_counter()
        self._rounds.begin(order)
        if self._masks is not None:
            return self._play_masked(order, nodes, self._masks, started)
        if (tally := self._rounds.closed(order)) is None:
            tally = self.collect(order, nodes, partial(self._spool_update, order))
            self._rounds.close(order, tally)
        updates, verdict = self._judged(order, tally)
        record = partial(self._record, order, tally, started, norms=verdict.norms, late=_late(updates))
        if len(updates) < self._config.federation.min_sites:
            noted = self._noted(record(void=True))
            for site in verdict.refused:
                self._rounds.spool.drop(site)
            raise VoidRoundError(self._void(order, tally), noted, over=False)
        mean = merge(updates, [self._weight(update) for update in updates], self._config.merge)
        return self._adopt(mean, order, record)

    def collect(
        self, order: Order, nodes: Callable[[], Sequence[int]], take: Callable[[Report, Mapping[str, Array]], None]
    ) -> Tally:
        """What came of an order by its deadline: who is in the spool already is not asked, and counts.

        A site that was lost on the way, and is back before the deadline, is asked once more.

        `take` uses a report and the arrays beside it, and spools it.
        """
        remarks = self._journal.remarks()

        def each(node: int) -> Order:
            remark = remarks.get(self._inquiry.name(node), "")
            return replace(order, remark=remark) if remark else order

        with_late = order.action == "train.pretrain"
        ask = partial(self._inquiry.ask, order, take=take, base=self.packed, each=each, with_late=with_late)
        here = {update.site for update in self._rounds.spool.updates() if not update.late}
        deadline = time.monotonic() + self._config.federation.round_timeout_s
        tally = ask([node for node in nodes() if self._inquiry.name(node) not in here])
        lost = {site for site, code in tally.refused.items() if code in (*AGAIN, GONE)}
        back = self._back(lost, nodes) if lost and time.monotonic() < deadline else {}
        if back and (left := deadline - time.monotonic()) > 0:
            tally.add(ask(list(back.values()), timeout_s=left), asked=back)
        # An update of an earlier round may have come from a site that is silent in this one.
        tally.reports = self._rounds.spool.reports()
        for site in tally.reports.keys() & tally.refused.keys():
            del tally.refused[site]
            tally.reasons.pop(site, None)
        return tally

    def _back(self, lost: Collection[str], nodes: Callable[[], Sequence[int]]) -> dict[str, int]:
        """The nodes, by site, of those that were lost and are there again: they answer with what they have kept."""
        try:
            return {name: node for node in nodes() if (name := self._inquiry.name(node)) in lost}
        except FederationError:
            return {}

    def keep(self, report: Report) -> None:
        """Spool a report that has nothing beside it.

        Raises:
            OutputError: the disk refuses.
        """
        self._rounds.spool.put(report, {})

    def _spool_update(self, order: Order, report: Report, arrays: Mapping[str, Array]) -> None:
        """Keep an update that could be merged, unless its site has sent a newer one, or it was merged in its own round.

        Raises:
            UpdateError: it could not be merged.
            OutputError: the disk refuses.
        """
        late = order.round - report.round
        update = decode(arrays, self.schema, Codec.of(order.codec))
        self.check_update(report, update)
        newest = {kept.site: kept.late for kept in self._rounds.spool.updates()}.get(report.site, late)
        if late <= newest and not (late and self._journal.merged(report.site, report.round)):
            self._rounds.spool.put(report, update, late)

    def _judged(self, order: Order, tally: Tally) -> tuple[list[Update], Verdict]:
        """The updates to merge, in the order of their sites' names; the others are refused in the tally."""
        updates = self._rounds.spool.updates()
        verdict = judge(
            updates,
            base=self.packed,
            last_step=last_step(self._folder, order.round - 1),
            usual=self._journal.norms(before=order.round, rounds=self._config.screen.history),
            config=self._config.screen,
            private=self._config.recipe.privacy.on,
        )
        for site, error in verdict.refused.items():
            tally.refuse(site, error)
            tally.reports.pop(site, None)
        return [update for update in updates if update.site not in verdict.refused], verdict

    def _weight(self, update: Update) -> float:
        """The weight of an update in the mean: its examples, less for each round that it is late."""
        return float(update.report.examples / (1 + update.late) ** self._config.federation.staleness)

    def _play_masked(
        self, order: Order, nodes: Callable[[], Sequence[int]], masks: Terms, started: float
    ) -> RoundRecord:
        """The same under masks: only the sum is opened, once enough sites have agreed on whose updates are in it."""
        post = self._post
        assert post is not None, "masks come with enrolled sites"
        online = {post.site(node): node for node in nodes()}
        round = MaskedRound.open(
            self._rounds,
            lambda: masks.session(order, self.schema, list(online)),
            order=order,
            nodes=online,
            ask=partial(self._inquiry.ask, base=self.packed),
            stage_timeout_s=masks.settings.stage_timeout_s,
            mask_timeout_s=self._config.federation.round_timeout_s,
        )
        record = partial(self._record, order, round.tally, started)
        try:
            merged = round.play()
        except SecaggError as error:
            round.tally.reports.clear()
            noted = self._noted(record(void=True, secagg=round.facts()))
            raise VoidRoundError(masks.why_void(round, error), noted, over=round.revealed) from None
        mean = unpack_mean(merged.mean, self.schema.flat_sizes)
        return self._adopt(mean, order, partial(record, secagg=round.facts()))

    def _adopt(self, mean: Mapping[str, Array], order: Order, record: Callable[..., RoundRecord]) -> RoundRecord:
        """Step by the mean update, note the round, and save: with the weights in their place it is over.

        A process that ends between the journal's line and the weights leaves the round in its folder, and the next one
        comes to the same weights and notes nothing twice.
        """
        before, length = self.packed, norm(mean)
        self._step(mean)
        noted = self._noted(record(update_norm=length))
        keeps_step = self._masks is None and self._config.screen.free_riders
        # The disk takes its time, and the next order needs the digest.
        with ThreadPoolExecutor(1) as beside:
            named = beside.submit(lambda: self.digest)
            self.save(order.round, difference(self.packed, before) if keeps_step else {})
            named.result()
        self._rounds.clear()
        return noted

    def _noted(self, record: RoundRecord) -> RoundRecord:
        """The record as the journal has it: an earlier process may have noted this very attempt."""
        noted = self._journal.of(record.round, record.attempt)
        if noted is None:
            self._journal.append(record)
        return noted or record

    def check_update(self, report: Report, update: Mapping[str, Array]) -> None:
        """Return only if the weights beside a report could be merged.

        Raises:
            UpdateError: they could not.
        """
        unpack(update, self.schema)
        check_examples(report, self._config.strategy.max_examples)
        check_finite(update, self.packed)

    def save(self, round: int, step: Mapping[str, Array] | None = None) -> None:
        """Write the weights, the optimiser's moments and the step that led to them to the output folder."""
        moments = self._optimizer.state_dict()
        keep = self._config.federation.keep_weights
        save_round(self._folder, self.weights, moments, run_id=self._run_id, round=round, step=step, keep=keep)

    def _step(self, mean: Mapping[str, Array]) -> None:
        stepped = self._optimizer.step(self.packed, mean)
        if not all_finite(stepped) or not all_finite(self._optimizer.state_dict()):
            raise FederationError(
                f"the server's {self._config.strategy.optimizer} step is not finite, so the weights stay as they were, "
                f"and would be so again; start another run from them with initial_weights={self._folder / WEIGHTS} and "
                "a lower strategy.lr, or another strategy or merge.rule"
            )
        self.packed, self._named = stepped, None

    def _record(
        self,
        order: Order,
        tally: Tally,
        started: float,
        *,
        update_norm: float = 0.0,
        void: bool = False,
        norms: Mapping[str, float] | None = None,
        late: Mapping[str, int] | None = None,
        secagg: Mapping[str, Any] | None = None,
    ) -> RoundRecord:
        return RoundRecord(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            sites_expected=self._config.federation.sites,
            sites_merged=0 if void else len(tally.reports),
            merged=[] if void else sorted(tally.reports),
            refused=dict(sorted(tally.refused.items())),
            reasons=dict(sorted(tally.reasons.items())),
            examples=tally.examples,
            losses=tally.means(),
            update_norm=update_norm,
            bytes_up=tally.bytes_up,
            bytes_down=tally.bytes_down,
            seconds=time.perf_counter() - started,
            lr=self._config.strategy.lr,
            epsilon=tally.epsilon(),
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            rule=self._config.merge.rule,
            norms=norms or {},
            late=late or {},
            secagg=secagg or {},
        )

    def _void(self, order: Order, tally: Tally) -> str:
        return (
            f"round {order.round}, attempt {order.attempt} is void: {len(tally.reports)} updates could be merged, but "
            f"federation.min_sites is {self._config.federation.min_sites}; lost: "
            f"{name_lost(tally.refused, tally.reasons) or 'none'}; each site's own log says more. The weights are "
            "those of the round before"
        )


def _late(updates: Sequence[Update]) -> dict[str, int]:
    return {update.site: update.late for update in updates if update.late}
