"""One round: orders, replies one by one, verify, decode, screen, merge, server optimiser, checkpoint, journal."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from protocol.codec import digest, pack, unpack
from protocol.envelope import payload_digest
from protocol.errors import ProtocolError
from protocol.messages import Order, Refusal, Report
from protocol.records import arrays_to_record, payload_bytes, reply_from_record, to_record
from protocol.schema import WeightSchema
from protocol.secagg.errors import SecaggError
from protocol.secagg.packed import unpack_mean
from server.checkpoint import save_round
from server.config import RunConfig
from server.errors import FederationError, VoidRoundError
from server.exchange import WORDS, Reply, exchange
from server.journal import Journal, RoundRecord, name_lost
from server.merge import StreamingMean, norm
from server.optimizer import ServerOptimizer
from server.screen import Roster, check_answers, check_examples, check_finite
from server.seal import Post
from server.secagg import MaskedRound, Terms
from server.tally import RefusedError, Tally, quoted

Array = np.ndarray[Any, Any]


class Strategy:
    """The global weights of one run, and how a round changes them.

    Args:
        grid: Flower's grid.
        config: The run.
        run_id: Its name.
        weights: The shared weights to begin with, by name.
        journal: Where each round is recorded.
        post: Signs orders and checks replies; None in a trial on one machine.
        masks: What sessions of secure aggregation have in common; None for plain rounds.
    """

    def __init__(
        self,
        grid: Grid,
        config: RunConfig,
        run_id: str,
        weights: Mapping[str, Array],
        journal: Journal,
        post: Post | None = None,
        masks: Terms | None = None,
    ) -> None:
        self.schema = WeightSchema.of(weights)
        self.packed = pack(weights, self.schema)
        self._grid, self._config, self._run_id, self._journal = grid, config, run_id, journal
        self._optimizer = ServerOptimizer(config.strategy, self.schema.flat_sizes)
        self._post, self._roster, self._masks = post, Roster(post.site if post else None), masks

    @property
    def digest(self) -> str:
        """The digest that names the weights to the sites."""
        return digest(self.packed, self.schema)

    @property
    def weights(self) -> dict[str, Array]:
        """The shared weights by name, as views."""
        return unpack(self.packed, self.schema)

    def play_round(self, order: Order, nodes: Sequence[int]) -> RoundRecord:
        """The record of one round of `train.pretrain`; the global weights have changed and lie on the disk.

        Raises:
            VoidRoundError: too few sites answered a stage of secure aggregation; the weights are as before.
            FederationError: too few updates could be merged; the round is void and the weights are as before.
            OutputError: the disk refuses.
        """
        if self._masks is not None:
            return self._play_masked(order, nodes, self._masks)
        started = time.perf_counter()
        merge = StreamingMean(self.schema)

        def take(report: Report, update: Mapping[str, Array]) -> None:
            self.check_update(report, update)
            merge.add(update, report.examples)

        tally = self.ask(order, nodes, take)
        if merge.count < self._config.federation.min_sites:
            self._journal.append(self._record(order, tally, started, update_norm=0.0))
            raise FederationError(self._void(order, tally))
        return self._adopt(merge.mean(), order, tally, started)

    def _play_masked(self, order: Order, nodes: Sequence[int], masks: Terms) -> RoundRecord:
        """The same under masks: only the sum is opened, once enough sites have agreed on whose updates are in it."""
        assert self._post is not None, "masks come with enrolled sites"
        started, online = time.perf_counter(), {self._post.site(node): node for node in nodes}
        round = MaskedRound(
            session=masks.session(order, self.schema, list(online)),
            order=order,
            nodes=online,
            ask=self.ask,
            stage_timeout_s=masks.settings.stage_timeout_s,
            mask_timeout_s=self._config.federation.round_timeout_s,
        )
        try:
            merged = round.play()
        except SecaggError as error:
            round.tally.reports.clear()
            record = self._record(order, round.tally, started, update_norm=0.0, secagg=round.facts())
            self._journal.append(record)
            raise VoidRoundError(masks.why_void(round, error), record, over=round.revealed) from None
        mean = unpack_mean(merged.mean, self.schema.flat_sizes)
        return self._adopt(mean, order, round.tally, started, secagg=round.facts())

    def _adopt(
        self,
        mean: Mapping[str, Array],
        order: Order,
        tally: Tally,
        started: float,
        secagg: Mapping[str, Any] | None = None,
    ) -> RoundRecord:
        """Step by the mean update, save, and note the round."""
        self._step(mean)
        self.save(order.round)
        record = self._record(order, tally, started, update_norm=norm(mean), secagg=secagg)
        self._journal.append(record)
        return record

    def ask(
        self,
        order: Order,
        nodes: Sequence[int],
        take: Callable[[Report, Mapping[str, Array]], None],
        *,
        each: Callable[[int], Order] | None = None,
        timeout_s: float | None = None,
    ) -> Tally:
        """What came of an order: each report that answers it is handed to `take`, which may refuse it by raising.

        A fault of a site costs that site its place in the tally, with a code, and nothing else.

        Args:
            order: What is asked.
            nodes: Whom.
            take: Uses a report and the arrays beside it.
            each: What one node is asked in its place: the same, but for what secure aggregation forwards to it.
            timeout_s: How long to wait; by default that of a round.
        """
        tally = Tally()
        timeout_s = timeout_s or self._config.federation.round_timeout_s
        for reply in self._replies(order, nodes, tally, each, timeout_s):
            try:
                if self._post and reply.content is not None:
                    self._post.check(reply.node, reply.content)
                report, arrays = _read(reply)
                check_answers(report, order)
                report = self._weighed(reply.node, report, order)
                self._roster.claim(reply.node, report.site, nodes)
                take(report, arrays)
            except ProtocolError as error:
                tally.refuse(self._roster.name(reply.node), error)
            else:
                tally.reports[self._roster.name(reply.node)] = report
        return tally

    def check_update(self, report: Report, update: Mapping[str, Array]) -> None:
        """Return only if the weights beside a report could be merged.

        Raises:
            UpdateError: they could not.
        """
        unpack(update, self.schema)
        check_examples(report, self._config.strategy.max_examples)
        check_finite(update, self.packed)

    def _weighed(self, node: int, report: Report, order: Order) -> Report:
        """The report, its weight in a plain mean no larger than the public units of its enrolled site.

        Raises:
            ExamplesError: it claims more than any site may.
        """
        if self._post is None or order.masking or order.action != "train.pretrain":
            return report
        check_examples(report, self._config.strategy.max_examples)
        return replace(report, examples=min(report.examples, self._post.units(node)))

    def save(self, round: int) -> None:
        """Write the weights and the optimiser's moments to the output folder."""
        save_round(
            self._journal.path.parent, self.weights, self._optimizer.state_dict(), run_id=self._run_id, round=round
        )

    def _replies(
        self, order: Order, nodes: Sequence[int], tally: Tally, each: Callable[[int], Order] | None, timeout_s: float
    ) -> Iterator[Reply]:
        """The replies as they arrive, their bytes counted."""
        arrays = self.packed if order.action.startswith("train.") else {}
        base, post = arrays_to_record(arrays), self._post
        same = payload_digest(order, arrays) if post and each is None else ""

        def content(node: int) -> RecordDict:
            asked = each(node) if each else order
            seal = post.seal(asked, node, same or payload_digest(asked, arrays)) if post else None
            record = to_record(asked, base, seal)
            tally.bytes_down += payload_bytes(record)
            return record

        group = str(order.round)
        for reply in exchange(self._grid, nodes, content, action=order.action, group=group, timeout_s=timeout_s):
            tally.bytes_up += payload_bytes(reply.content) if reply.content is not None else 0
            yield reply

    def _step(self, mean: Mapping[str, Array]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            stepped = self._optimizer.step(self.packed, mean)
        held = [*stepped.values(), *self._optimizer.state_dict().values()]
        if not all(np.isfinite(array).all() for array in held):
            raise FederationError(
                f"the server's {self._config.strategy.optimizer} step is not finite, so the weights stay as they were; "
                "lower strategy.lr, or look at update_norm in the journal for a site that diverges"
            )
        self.packed = stepped

    def _record(
        self,
        order: Order,
        tally: Tally,
        started: float,
        *,
        update_norm: float,
        secagg: Mapping[str, Any] | None = None,
    ) -> RoundRecord:
        return RoundRecord(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            sites_expected=self._config.federation.sites,
            sites_merged=len(tally.reports),
            merged=sorted(tally.reports),
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
            secagg=secagg or {},
        )

    def _void(self, order: Order, tally: Tally) -> str:
        return (
            f"round {order.round} is void: {len(tally.reports)} updates could be merged, but federation.min_sites is "
            f"{self._config.federation.min_sites}; lost: {name_lost(tally.refused, tally.reasons) or 'none'}; each "
            "site's own log says more. The weights are those of the round before"
        )


def _read(reply: Reply) -> tuple[Report, dict[str, Array]]:
    """The report and arrays in a reply.

    Raises:
        ProtocolError: there is none; its code says why.
    """
    if reply.content is None:
        raise RefusedError(reply.fault, WORDS.get(reply.fault, ""))
    message, arrays = reply_from_record(reply.content)
    if isinstance(message, Refusal):
        raise RefusedError(message.code, quoted(message.text))
    return message, arrays
