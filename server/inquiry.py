"""One order to many sites: what each is sent, and what of its reply is taken. A site's fault costs that site alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from protocol.envelope import payload_digest
from protocol.errors import ProtocolError
from protocol.messages import Order, Refusal, Report
from protocol.records import arrays_to_record, payload_bytes, reply_from_record, to_record
from server.config import RunConfig
from server.exchange import WORDS, Late, Reply, exchange
from server.screen import Roster, check_answers, check_examples
from server.seal import Post
from server.tally import RefusedError, Tally, quoted

Array = np.ndarray[Any, Any]


class Inquiry:
    """Asks the sites of one run.

    Args:
        grid: Flower's grid.
        config: The run.
        post: Signs orders and checks replies; None in a trial on one machine.
    """

    def __init__(self, grid: Grid, config: RunConfig, post: Post | None = None) -> None:
        self._grid, self._config, self._post = grid, config, post
        self._roster = Roster(post.site if post else None)
        self._late: Late | None = {} if config.federation.late == "discount" else None

    def name(self, node: int) -> str:
        """What the site of a node is called, as far as it is known."""
        return self._roster.name(node)

    def ask(
        self,
        order: Order,
        nodes: Sequence[int],
        take: Callable[[Report, Mapping[str, Array]], None],
        *,
        base: Mapping[str, Array],
        each: Callable[[int], Order] | None = None,
        timeout_s: float | None = None,
        with_late: bool = False,
    ) -> Tally:
        """What came of an order: each report that answers it is handed to `take`, which may refuse it by raising.

        A fault of a site costs that site its place in the tally, with a code, and nothing else.

        Args:
            order: What is asked.
            nodes: Whom.
            take: Uses a report, whose `site` is then the server's name for it, and the arrays beside it.
            base: The packed weights that travel beside an order to train.
            each: What one node is asked in its place: the same, but for what secure aggregation forwards to it.
            timeout_s: How long to wait; by default that of a round.
            with_late: Whether answers to orders of earlier rounds are taken too, where the run uses late updates.
        """
        tally = Tally()
        contents = self._contents(order, base, each, tally)
        late = self._late if with_late else None
        for reply in self._replies(order, nodes, contents, tally, timeout_s, late):
            try:
                report, arrays = self._checked(reply)
                self._roster.claim(reply.node, report.site, nodes)
                report = self._weighed(reply.node, replace(report, site=self._roster.name(reply.node)), order)
                take(report, arrays)
            except ProtocolError as error:
                if reply.order.round == order.round:
                    tally.refuse(self._roster.name(reply.node), error)
            else:
                tally.reports[report.site] = report
        return tally

    def _checked(self, reply: Reply) -> tuple[Report, Mapping[str, Array]]:
        """The report in a reply and the arrays beside it.

        Raises:
            ProtocolError: there is none, it is not its site's, or it answers another order; its code says which.
        """
        if reply.content is None:
            raise RefusedError(reply.fault, reply.words or WORDS.get(reply.fault, ""))
        if self._post:
            self._post.check(reply.node, reply.content, reply.order)
        message, arrays = reply_from_record(reply.content)
        if isinstance(message, Refusal):
            raise RefusedError(message.code, quoted(message.text))
        check_answers(message, reply.order)
        return message, arrays

    def _weighed(self, node: int, report: Report, order: Order) -> Report:
        """The report, its weight in a plain mean no larger than the public units of its enrolled site.

        Raises:
            ExamplesError: it claims more than any site may.
        """
        if self._post is None or order.masking or order.action != "train.pretrain":
            return report
        check_examples(report, self._config.strategy.max_examples)
        return replace(report, examples=min(report.examples, self._post.units(node)))

    def _contents(
        self, order: Order, base: Mapping[str, Array], each: Callable[[int], Order] | None, tally: Tally
    ) -> Callable[[int], RecordDict]:
        """What makes the content of one node's message; the weights in it are the same for all, and held once."""
        arrays = base if order.action.startswith("train.") else {}
        beside, post = arrays_to_record(arrays), self._post
        same = payload_digest(order, arrays) if post and (each is None or not order.masking) else ""

        def content(node: int) -> RecordDict:
            asked = each(node) if each else order
            payload = same if asked is order and same else payload_digest(asked, arrays) if post else ""
            seal = post.seal(asked, node, payload) if post else None
            record = to_record(asked, beside, seal)
            tally.bytes_down += payload_bytes(record)
            return record

        return content

    def _replies(
        self,
        order: Order,
        nodes: Sequence[int],
        content: Callable[[int], RecordDict],
        tally: Tally,
        timeout_s: float | None,
        late: Late | None,
    ) -> Iterator[Reply]:
        """The replies as they arrive, their bytes counted."""
        federation = self._config.federation
        timeout_s = timeout_s or federation.round_timeout_s
        replies = exchange(
            self._grid, nodes, content, order, timeout_s=timeout_s, late=late, at_once=federation.at_once
        )
        for reply in replies:
            tally.bytes_up += payload_bytes(reply.content) if reply.content is not None else 0
            yield reply
