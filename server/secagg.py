"""One attempt at one round of secure aggregation at the server: five exchanges, of which only the sum is opened.

    advertise -> share -> mask -> agree -> unmask

A site that misses a stage is out of the attempt, and costs nothing else while enough others answer.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from protocol.errors import ExamplesError, IdentityError, UnexpectedWeightsError
from protocol.messages import STAGE_ACTIONS, Order, Report
from protocol.schema import WeightSchema
from protocol.secagg.content import Content
from protocol.secagg.errors import SecaggError
from protocol.secagg.fixed_point import choose
from protocol.secagg.messages import STAGES, Masked
from protocol.secagg.server import KINDS, OPEN, Aggregator, Merged
from protocol.secagg.session import LEAST_SITES, Session, threshold_for
from server.config import RunConfig, SecaggConfig
from server.exchange import AGAIN, NO_ANSWER
from server.journal import name_lost
from server.round_folder import RoundFolder
from server.seal import Post
from server.tally import Tally

Array = np.ndarray[Any, Any]
Take = Callable[[Report, Mapping[str, Array]], None]

OFFLINE = "offline"
"""The code of a site of the session that was not there when it began."""


class Ask(Protocol):
    """`Inquiry.ask`: one order a node, and each report to `take`."""

    def __call__(  # noqa: D102
        self, order: Order, nodes: Sequence[int], take: Take, *, each: Callable[[int], Order], timeout_s: float
    ) -> Tally: ...


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the sessions of one run have in common."""

    keys: Mapping[str, str]
    """The Ed25519 key, in hex, of every enrolled site that may take part."""
    weights: Mapping[str, int]
    """The enrolled units of each."""
    colluding: int
    min_sites: int
    """Fewest updates that make a round; the threshold is no lower."""
    settings: SecaggConfig

    @classmethod
    def of(cls, config: RunConfig, post: Post) -> "Terms":
        """Those of a run of this federation."""
        members = post.members
        return cls(
            keys={name: site.signing_key for name, site in members.items()},
            weights={name: site.units for name, site in members.items()},
            colluding=post.secagg.colluding,
            min_sites=config.federation.min_sites,
            settings=config.secagg,
        )

    @property
    def fewest(self) -> int:
        """Sites of the smallest session that holds against so many colluding ones."""
        return max(LEAST_SITES, self.colluding + 2)

    @property
    def least_online(self) -> int:
        """Sites that must be online before a session begins: its threshold at least."""
        return self.threshold(self.fewest)

    def threshold(self, sites: int) -> int:
        """How many of so many sites must answer every stage.

        Raises:
            SessionError: there are too few.
        """
        return min(sites, max(threshold_for(sites, self.colluding), self.min_sites))

    def why_void(
        self, round: "MaskedRound", error: SecaggError, rest: str = "The weights are those of the round before"
    ) -> str:
        """The words of an attempt that came to nothing, with the threshold and what it tolerates."""
        session, order = round.session, round.order
        sites, threshold = len(session.sites), session.threshold
        least = threshold_for(sites, session.colluding)
        reason = f"2t > n + c for n = {sites} sites of which c = {session.colluding} may collude (federation.yaml)"
        if threshold > least:
            reason = f"federation.min_sites asks for more than the {least} of {reason}"
        spare = sites - threshold
        # Those that were lost after they had sent their words are not in the tally.
        codes = {site: missed["code"] for site, missed in round.absent.items()} | round.tally.refused
        lost = name_lost(codes, round.tally.reasons) or "none"
        return (
            f"round {order.round}, attempt {order.attempt} is void: {error}. The threshold is {threshold}, since "
            f"{reason}; {spare or 'no'} site{'' if spare == 1 else 's'} may drop out. Lost: {lost}. "
            f"{rest}"
        )

    def session(self, order: Order, schema: WeightSchema, online: Sequence[str]) -> Session:
        """The session of an order for the sites online, and for some that are not where it would be too small.

        Raises:
            SessionError: too few sites are enrolled.
            RangeError: no fixed-point format holds these weights at the asked precision.
        """
        away = sorted(self.keys.keys() - set(online))
        names = sorted([*online, *away[: max(0, self.fewest - len(online))]])
        weights = {name: self.weights[name] for name in names}
        threshold, settings = self.threshold(len(names)), self.settings
        return Session(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            keys={name: self.keys[name] for name in names},
            weights=weights,
            colluding=self.colluding,
            threshold=threshold,
            schema_digest=schema.digest,
            base_digest=order.base_digest,
            values=sum(schema.flat_sizes.values()),
            fixed_point=choose(
                clip=settings.clip,
                tolerance=settings.tolerance,
                weights=weights.values(),
                threshold=threshold,
                rounding=settings.rounding,
            ),
        )


@dataclass(kw_only=True)
class MaskedRound:
    """One attempt, as far as it has come."""

    session: Session
    order: Order
    nodes: Mapping[str, int]
    """The node of each site of the session that was online."""
    ask: Ask
    stage_timeout_s: float
    mask_timeout_s: float
    actions: Mapping[str, str] = field(default_factory=lambda: STAGE_ACTIONS)
    """The action of each stage."""
    folder: RoundFolder | None = None
    """Where it is kept how far the attempt has come; without one it does not outlive the process."""
    tally: Tally = field(default_factory=Tally)
    """Reports are those of the sites in the sum."""
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each site that missed a stage the first that it missed, and why as a code."""

    def __post_init__(self) -> None:
        """Begin."""
        self.aggregator = Aggregator(self.session)
        for site in sorted(set(self.session.sites) - self.nodes.keys()):
            self.absent[site], self.tally.refused[site] = {"stage": STAGES[0], "code": OFFLINE}, OFFLINE

    @classmethod
    def open(cls, folder: RoundFolder, session: Callable[[], Session], **rest: Any) -> "MaskedRound":
        """The attempt that lies in the folder, as far as it had come; else a new one of the session that is made then.

        Raises:
            OutputError: what lies there cannot be read.
            SessionError, RangeError: no session can be had.
        """
        kept = folder.masks()
        if kept is None:
            return cls(session=session(), folder=folder, **rest)
        aggregator = Aggregator.from_dict(kept["aggregator"])
        round = cls(session=aggregator.session, folder=folder, **rest)
        round.aggregator, round.absent = aggregator, kept["absent"]
        round.tally.refused, round.tally.reasons = kept["refused"], kept["reasons"]
        for update in folder.spool.updates():
            (words,) = update.arrays.values()
            aggregator.receive(Masked.from_dict(update.report.masking), words)
            round.tally.reports[update.site] = update.report
        for site in sorted(set(round.session.sites) - {*round.nodes, *round.absent, *round.tally.reports}):
            round.absent[site], round.tally.refused[site] = {"stage": aggregator.stage, "code": OFFLINE}, OFFLINE
        return round

    def play(self) -> Merged:
        """The weighted mean of the survivors' updates.

        Raises:
            ThresholdError: too few sites answered a stage.
            ShareError: a site's shares do not combine; nothing is opened.
        """
        aggregator = self.aggregator
        self._stage("advertise", lambda site: self.session)
        roster = aggregator.roster()
        self._stage("share", lambda site: roster)
        self._stage("mask", aggregator.inboxes().__getitem__)
        survivors = aggregator.survivors()
        self._stage("agree", lambda site: survivors)
        accord = aggregator.accord()
        self._stage("unmask", lambda site: accord)
        return aggregator.merged()

    @property
    def revealed(self) -> bool:
        """Whether sites were asked for their shares: they take part in no other attempt at the round then."""
        return self.aggregator.stage in (STAGES[-1], OPEN)

    def facts(self) -> dict[str, Any]:
        """What the journal says of it."""
        return {
            "sites": list(self.session.sites),
            "colluding": self.session.colluding,
            "threshold": self.session.threshold,
            "survivors": sorted(self.tally.reports),
            "revealed": self.revealed,
            "absent": dict(sorted(self.absent.items())),
        }

    def _stage(self, stage: str, forward: Callable[[str], Content]) -> None:
        """Ask whoever may answer, once more where a site is there and its answer is not, and note who did not.

        A stage that was over before a restart is passed by.
        """
        self._keep()
        if STAGES.index(stage) < (*STAGES, OPEN).index(self.aggregator.stage):
            return
        asked = [site for site in self.aggregator.missing() if site in self.nodes]
        timeout_s = self.mask_timeout_s if stage == "mask" else self.stage_timeout_s
        deadline = time.monotonic() + timeout_s
        tally = self._ask(stage, asked, forward, timeout_s)
        lost = [site for site, code in tally.refused.items() if code in AGAIN]
        if lost and (left := deadline - time.monotonic()) > 0:
            tally.add(self._ask(stage, lost, forward, left), asked=lost)
        self._note(stage, asked, tally)

    def _ask(self, stage: str, sites: Sequence[str], forward: Callable[[str], Content], timeout_s: float) -> Tally:
        by_node = {self.nodes[site]: site for site in sites}
        order = replace(self.order, action=self.actions[stage], masking=self.session.to_dict())
        if stage != "mask":
            order = replace(order, vocabulary=())

        def each(node: int) -> Order:
            return replace(order, masking=forward(by_node[node]).to_dict())

        def take(report: Report, arrays: Mapping[str, Array]) -> None:
            self._take(stage, report, arrays)

        return self.ask(order, sorted(by_node), take, each=each, timeout_s=timeout_s)

    def _take(self, stage: str, report: Report, arrays: Mapping[str, Array]) -> None:
        """Give a site's message to the aggregator.

        Raises:
            ProtocolError: it is not what this stage asks this site for.
        """
        message = KINDS[stage].from_dict(report.masking)
        if message.site != report.site:
            raise IdentityError(f"the report is of {report.site[:64]}, and the message in it of {message.site}")
        if set(arrays) != ({self.session.fixed_point.dtype.name} if stage == "mask" else set()):
            raise UnexpectedWeightsError(
                f"beside an answer to the stage '{stage}' there are {len(arrays)} arrays, not those of the session"
            )
        if stage == "mask" and report.examples != self.session.weights[report.site]:
            raise ExamplesError(
                f"the report claims {report.examples} examples, and {self.session.weights[report.site]} are enrolled"
            )
        self.aggregator.receive(message, next(iter(arrays.values()), None))
        if stage == "mask" and self.folder is not None:
            self.folder.spool.put(report, arrays)
        self._keep()

    def _keep(self) -> None:
        """Bring to the disk how far the attempt has come; masked words lie in the spool."""
        if self.folder is not None:
            self.folder.keep_masks(
                {
                    "aggregator": self.aggregator.to_dict(),
                    "absent": self.absent,
                    "refused": self.tally.refused,
                    "reasons": self.tally.reasons,
                }
            )

    def _note(self, stage: str, asked: Sequence[str], tally: Tally) -> None:
        self.tally.bytes_up += tally.bytes_up
        self.tally.bytes_down += tally.bytes_down
        if stage == "mask":
            self.tally.reports |= tally.reports
        for site in asked:
            if site not in tally.reports:
                code = tally.refused.get(site, NO_ANSWER)
                self.absent[site] = {"stage": stage, "code": code}
                # One that is lost later is in the sum all the same.
                if site not in self.tally.reports:
                    self.tally.refused[site] = code
                    self.tally.reasons |= {site: tally.reasons[site]} if site in tally.reasons else {}
