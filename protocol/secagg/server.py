"""The aggregator's side: it collects a stage, forwards it, adds masked vectors up one at a time, and opens their sum.

    keys -> roster -> shares -> inbox -> masked vectors -> survivors -> agreements -> accord -> reveals -> merged

Each arrow to the right of what sites send closes their stage. Nothing here is secret until the last stage, and then
only what opens the sum is.
Source: Bonawitz et al., CCS 2017, figure 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from protocol.errors import DtypeError, ShapeError
from protocol.secagg.content import VERSION, require
from protocol.secagg.errors import ConsistencyError, ReplayError, StageError, ThresholdError
from protocol.secagg.fixed_point import decode
from protocol.secagg.keys import check_public
from protocol.secagg.masks import add_masks, vector_digest
from protocol.secagg.messages import (
    STAGES,
    Accord,
    Agreement,
    FromSite,
    Inbox,
    Keys,
    Masked,
    Reveal,
    Roster,
    Shares,
    Survivors,
    verify_message,
)
from protocol.secagg.opening import opening_masks
from protocol.secagg.session import Session

Array = np.ndarray[Any, Any]
Message = TypeVar("Message", bound=FromSite)

KINDS: dict[str, type[FromSite]] = dict(zip(STAGES, (Keys, Shares, Masked, Agreement, Reveal), strict=True))
OPEN = "open"
"""The stage after the last: the sum is opened."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The result of a round."""

    mean: Array
    """Weighted mean of the survivors' updates, float64, one flat vector (`packed.unpack_mean`)."""
    survivors: tuple[str, ...]
    weight: int
    """Of the survivors together."""
    error_bound: float
    """Most that a coordinate of the mean is off, besides what sites clipped."""


class Aggregator:
    """One session at the server. It holds one vector, the sum; each method that forwards may be called again."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stage = STAGES[0]
        self._received: dict[str, dict[str, FromSite]] = {stage: {} for stage in STAGES}
        self._sum: Array | None = None
        self._summed: set[str] = set()

    def receive(self, message: FromSite, vector: Array | None = None) -> bool:
        """Whether the message counted; a repetition of the same one does not, and is no error.

        A masked vector is added to the sum and not kept.

        Raises:
            StaleError, SessionError, SignatureError: it is not a message of this session by the site that it names.
            StageError: it comes out of turn, or too late.
            ReplayError: the site has sent another one before.
            ConsistencyError: it does not answer what was forwarded.
            AgreementKeyError: its keys are unusable.
            UpdateError: the vector is not the one that the message describes.
        """
        verify_message(message, self.session)
        stage = next(stage for stage, kind in KINDS.items() if type(message) is kind)
        before = self._received[stage].get(message.site)
        if before is not None and before != message:
            raise ReplayError(
                f"{message.site} has answered the stage '{stage}' before, and otherwise; the first counts"
            )
        restored = stage == "mask" and before is not None and message.site not in self._summed
        if before is not None and not restored:
            return False
        if stage != self.stage and not restored:
            raise StageError(f"{message.site} answers the stage '{stage}', and the round is at '{self.stage}'; ignored")
        self._check_answer(message)
        if isinstance(message, Masked):
            self._add(message, vector)
        self._received[stage][message.site] = message
        return True

    def missing(self) -> tuple[str, ...]:
        """The sites that may still answer the stage in progress."""
        return tuple(sorted(set(self._asked(self.stage)) - self._received[self.stage].keys()))

    def roster(self) -> Roster:
        """To each site that advertised: everyone's keys.

        Raises:
            ThresholdError: too few have.
        """
        self._close("advertise")
        keys = self._messages("advertise", Keys)
        return Roster(session=self.session.digest, keys=tuple(keys[site] for site in sorted(keys)))

    def inbox(self, site: str) -> Inbox:
        """To one site that shared: what its peers have sealed for it.

        Raises:
            ThresholdError: too few have shared.
        """
        self._close("share")
        shares = self._messages("share", Shares)
        if site not in shares:
            raise StageError(f"{site} has not shared, and takes no further part in the round")
        sealed = {peer: message.sealed[site] for peer, message in sorted(shares.items()) if peer != site}
        return Inbox(session=self.session.digest, sealed=sealed)

    def inboxes(self) -> dict[str, Inbox]:
        """The inbox of each site that shared.

        Raises:
            ThresholdError: too few have.
        """
        self._close("share")
        return {site: self.inbox(site) for site in self._sites("share")}

    def survivors(self) -> Survivors:
        """To each site whose vector is in the sum: whose vectors are.

        Raises:
            ThresholdError: too few are.
        """
        self._close("mask")
        return Survivors(session=self.session.digest, sites=self._sites("mask"))

    def accord(self) -> Accord:
        """To each survivor: the agreements.

        Raises:
            ThresholdError: too few have agreed.
        """
        self._close("agree")
        agreements = self._messages("agree", Agreement)
        return Accord(session=self.session.digest, agreements=tuple(agreements[site] for site in sorted(agreements)))

    def open_sum(self) -> Array:
        """The survivors' encoded updates, added up: words, without any mask.

        Raises:
            ThresholdError: too few sites have revealed their shares.
            StageError: the vector of a survivor was lost in a restart, and has not been sent again.
            ShareError: shares do not combine to the secret that was announced.
        """
        if self.stage == OPEN:
            return self._sum_so_far()
        self._require_stage("unmask")
        self._require_enough("unmask")
        if lost := sorted(set(self._sites("mask")) - self._summed):
            raise StageError(
                f"the vectors of {', '.join(lost)} were lost in a restart; ask for their stored bytes again"
            )
        masks = opening_masks(
            self.session,
            keys=self._messages("advertise", Keys),
            shares=self._messages("share", Shares),
            survivors=self._sites("mask"),
            reveals=self._messages("unmask", Reveal),
        )
        add_masks(self._sum_so_far(), masks)
        self.stage = OPEN
        return self._sum_so_far()

    def merged(self) -> Merged:
        """The weighted mean of the survivors' updates.

        Raises:
            ThresholdError, StageError, ShareError: the sum cannot be opened.
        """
        words, survivors = self.open_sum(), self._sites("mask")
        session, share = self.session, self.session.share(*survivors)
        return Merged(
            mean=decode(words, session.fixed_point, share),
            survivors=survivors,
            weight=sum(session.weights[site] for site in survivors),
            error_bound=session.fixed_point.error_bound(len(survivors), share),
        )

    def to_dict(self) -> dict[str, Any]:
        """What outlives a restart, as plain JSON values: all that was received but the vectors."""
        received = {stage: {site: m.to_dict() for site, m in kept.items()} for stage, kept in self._received.items()}
        return {"version": VERSION, "session": self.session.to_dict(), "stage": self.stage, "received": received}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The aggregator of before a restart. The vectors are to be asked for again: sites have kept the bytes.

        Raises:
            VersionError, MessageError: another version wrote it, or it was changed.
        """
        require(values.get("version") == VERSION, "this is no aggregator of this version; start the round anew")
        aggregator = cls(Session.from_dict(values["session"]))
        aggregator.stage = STAGES[-1] if values["stage"] == OPEN else values["stage"]
        for stage, kept in values["received"].items():
            if stage != "mask" or aggregator.stage != "mask":
                aggregator._received[stage] = {site: KINDS[stage].from_dict(m) for site, m in kept.items()}
        return aggregator

    def _asked(self, stage: str) -> tuple[str, ...]:
        """The sites that the stage's input goes to: those that answered the stage before."""
        place = STAGES.index(stage)
        return self._sites(STAGES[place - 1]) if place else self.session.sites

    def _sites(self, stage: str) -> tuple[str, ...]:
        return tuple(sorted(self._received[stage]))

    def _messages(self, stage: str, kind: type[Message]) -> dict[str, Message]:
        return {site: message for site, message in self._received[stage].items() if isinstance(message, kind)}

    def _check_answer(self, message: FromSite) -> None:
        stage = next(stage for stage, kind in KINDS.items() if type(message) is kind)
        if message.site not in self._asked(stage):
            raise StageError(f"{message.site} has not answered the stage before '{stage}', and is out of the round")
        sharers, survivors = self._sites("share"), self._sites("mask")
        dropped = set(sharers) - set(survivors)
        match message:
            case Keys():
                # A site that is let in with such a key would make all others refuse.
                check_public(message.sealing)
                check_public(message.masking)
                fits = True
            case Shares():
                fits = message.sealed.keys() == set(self._sites("advertise")) - {message.site}
            case Agreement():
                fits = (message.sharers, message.survivors) == (sharers, survivors)
            case Reveal():
                fits = message.self_seeds.keys() == set(survivors) and message.mask_keys.keys() == dropped
            case _:
                fits = True
        if not fits:
            raise ConsistencyError(
                f"{message.site} answers the stage '{stage}' for other sites than those of the round"
            )

    def _add(self, message: Masked, vector: Array | None) -> None:
        dtype, shape = self.session.fixed_point.dtype, (self.session.values,)
        if vector is None or vector.shape != shape:
            found = "no vector" if vector is None else f"a vector of shape {list(vector.shape)}"
            raise ShapeError(f"{message.site} sent {found} instead of {list(shape)}; use the same model")
        if vector.dtype != dtype:
            raise DtypeError(f"{message.site} sent words of {vector.dtype} instead of {dtype}")
        if vector_digest(vector) != message.vector:
            raise ConsistencyError(f"the vector beside the message of {message.site} is another; ask for it again")
        total = self._sum_so_far()
        np.add(total, vector, out=total)
        self._summed.add(message.site)

    def _sum_so_far(self) -> Array:
        if self._sum is None:
            self._sum = np.zeros(self.session.values, self.session.fixed_point.dtype)
        return self._sum

    def _close(self, stage: str) -> None:
        """End the stage, if it is in progress and enough sites have answered."""
        if (*STAGES, OPEN).index(self.stage) > STAGES.index(stage):
            return
        self._require_stage(stage)
        self._require_enough(stage)
        self.stage = STAGES[STAGES.index(stage) + 1]

    def _require_stage(self, stage: str) -> None:
        if self.stage != stage:
            raise StageError(f"the round is at '{self.stage}', and '{stage}' comes after it")

    def _require_enough(self, stage: str) -> None:
        count, sites, needed = len(self._received[stage]), self.session.sites, self.session.threshold
        if count < needed:
            # A site that has revealed its shares takes part in no other attempt at the round.
            remedy = "go on with the next round" if stage == "unmask" else "start another attempt when they are there"
            absent = ", ".join(sorted(set(sites) - self._received[stage].keys()))
            raise ThresholdError(
                f"{count} of {len(sites)} sites answered the stage '{stage}', and {needed} are needed (without an "
                f"answer: {absent}); {remedy}"
            )
