"""One round: orders, replies one by one, verify, decode, screen, merge, server optimiser, checkpoint, journal."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from protocol.codec import digest, pack, unpack
from protocol.envelope import payload_digest
from protocol.errors import ProtocolError
from protocol.messages import EPSILON, Order, Refusal, Report, one_line
from protocol.records import arrays_to_record, payload_bytes, reply_from_record, to_record
from protocol.schema import WeightSchema
from server.checkpoint import save_round
from server.config import RunConfig
from server.errors import FederationError
from server.exchange import Reply, exchange
from server.journal import Journal, RoundRecord, name_lost
from server.merge import StreamingMean, norm
from server.optimizer import ServerOptimizer
from server.screen import Roster, check_answers, check_examples, check_finite
from server.seal import Post

Array = np.ndarray[Any, Any]


class RefusedError(ProtocolError):
    """The site itself, or Flower in its place, says why there is no report."""

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code


@dataclass(kw_only=True)
class Tally:
    """What came of each site that was asked."""

    reports: dict[str, Report] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """A code for each site that did not report."""
    reasons: dict[str, str] = field(default_factory=dict)
    """And the reason in words, where there is one."""
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def examples(self) -> int:
        """Examples behind the reports."""
        return sum(report.examples for report in self.reports.values())

    def refuse(self, site: str, error: ProtocolError) -> None:
        """Note why a site does not report."""
        self.refused[site] = error.code
        if reason := one_line(str(error)):
            self.reasons[site] = reason

    def means(self) -> dict[str, float]:
        """Each metric's mean over the sites that report it, weighted by examples; the order of arrival is not seen."""
        names = sorted({name for report in self.reports.values() for name in report.metrics} - {EPSILON})
        return {name: self._mean(name) for name in names}

    def epsilon(self) -> dict[str, float]:
        """What each site has spent, where it trained under differential privacy."""
        return {site: r.metrics[EPSILON] for site, r in sorted(self.reports.items()) if EPSILON in r.metrics}

    def _mean(self, name: str) -> float:
        having = [report for report in self.reports.values() if name in report.metrics]
        total = math.fsum(report.metrics[name] * report.examples for report in having)
        return total / sum(report.examples for report in having)


class Strategy:
    """The global weights of one run, and how a round changes them.

    Args:
        grid: Flower's grid.
        config: The run.
        run_id: Its name.
        weights: The shared weights to begin with, by name.
        journal: Where each round is recorded.
        post: Signs orders and checks replies; None in a trial on one machine.
    """

    def __init__(
        self,
        grid: Grid,
        config: RunConfig,
        run_id: str,
        weights: Mapping[str, Array],
        journal: Journal,
        post: Post | None = None,
    ) -> None:
        self.schema = WeightSchema.of(weights)
        self.packed = pack(weights, self.schema)
        self._grid, self._config, self._run_id, self._journal = grid, config, run_id, journal
        self._optimizer = ServerOptimizer(config.strategy, self.schema.flat_sizes)
        self._post, self._roster = post, Roster(post.site if post else None)

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
            FederationError: too few updates could be merged; the round is void and the weights are as before.
            OutputError: the disk refuses.
        """
        started = time.perf_counter()
        merge = StreamingMean(self.schema)

        def take(report: Report, update: Mapping[str, Array]) -> None:
            unpack(update, self.schema)
            check_examples(report, self._config.strategy.max_examples)
            check_finite(update, self.packed)
            merge.add(update, report.examples)

        tally = self.ask(order, nodes, take)
        if merge.count < self._config.federation.min_sites:
            self._journal.append(self._record(order, tally, started, update_norm=0.0))
            raise FederationError(self._void(order, tally))
        mean = merge.mean()
        self._step(mean)
        self.save(order.round)
        record = self._record(order, tally, started, update_norm=norm(mean))
        self._journal.append(record)
        return record

    def ask(self, order: Order, nodes: Sequence[int], take: Callable[[Report, Mapping[str, Array]], None]) -> Tally:
        """What came of an order: each report that answers it is handed to `take`, which may refuse it by raising.

        A fault of a site costs that site its place in the tally, with a code, and nothing else.
        """
        tally = Tally()
        for reply in self._replies(order, nodes, tally):
            try:
                if self._post and reply.content is not None:
                    self._post.check(reply.node, reply.content)
                report, arrays = _read(reply)
                check_answers(report, order)
                self._roster.claim(reply.node, report.site, nodes)
                take(report, arrays)
            except ProtocolError as error:
                tally.refuse(self._roster.name(reply.node), error)
            else:
                tally.reports[self._roster.name(reply.node)] = report
        return tally

    def save(self, round: int) -> None:
        """Write the weights and the optimiser's moments to the output folder."""
        save_round(
            self._journal.path.parent, self.weights, self._optimizer.state_dict(), run_id=self._run_id, round=round
        )

    def _replies(self, order: Order, nodes: Sequence[int], tally: Tally) -> Iterator[Reply]:
        """The replies as they arrive, their bytes counted."""
        arrays = {} if order.action == "evaluate.vqa" else self.packed
        base, post = arrays_to_record(arrays), self._post
        payload = payload_digest(order, arrays) if post else ""

        def content(node: int) -> RecordDict:
            record = to_record(order, base, post.seal(order, node, payload) if post else None)
            tally.bytes_down += payload_bytes(record)
            return record

        group, timeout_s = str(order.round), self._config.federation.round_timeout_s
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

    def _record(self, order: Order, tally: Tally, started: float, *, update_norm: float) -> RoundRecord:
        return RoundRecord(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            sites_expected=self._config.federation.sites,
            sites_merged=len(tally.reports),
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
        raise RefusedError(reply.fault)
    message, arrays = reply_from_record(reply.content)
    if isinstance(message, Refusal):
        raise RefusedError(message.code, message.text)
    return message, arrays
