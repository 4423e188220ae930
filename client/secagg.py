"""The site's stages of secure aggregation: each a message, a process of its own, and none but `mask` needs torch.

What a stage leaves is on the disk before its reply goes out. A site that is killed in between answers the same order
with the same bytes, or drops out; nothing is ever masked twice under the same keys. The stages themselves are
`protocol/secagg/site.py`; here they get their files, and the site checks the terms against what it knows.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from client.config import RunLimits, read_site_config
from client.errors import GateError
from client.keys import SiteKeys
from client.secagg_store import SecaggStore, end_other_runs
from protocol.codec import digest_under
from protocol.enrolment import Join
from protocol.errors import StaleError
from protocol.messages import Order, Report, to_json
from protocol.secagg import site as stages
from protocol.secagg.content import Content
from protocol.secagg.errors import SessionError
from protocol.secagg.messages import Accord, FromSite, Inbox, Masked, Roster, Survivors
from protocol.secagg.session import Session
from protocol.secagg.state import State, Step, session_of
from protocol.statistics import DIGEST as STATISTICS_DIGEST

Arrays = dict[str, np.ndarray[Any, Any]]
Given = TypeVar("Given", bound=Content)


class Masking:
    """One order of a session at the site in the folder `root`, which has joined the server's federation."""

    def __init__(self, root: Path, order: Order, log: logging.Logger) -> None:
        self._root, self._order, self._log = root, order, log
        self._keys = SiteKeys(root)
        self._join = self._keys.joined()
        self._store = SecaggStore.of(root, order.run_id)

    def advertise(self) -> Report:
        """Fresh keys for a session whose terms this site accepts.

        Raises:
            GateError: it covers the site's update less than the site's limits ask for.
            SecaggError: its terms are not those that this site knows, or it may not follow the last session.
            StaleError: the session is of another round or base than the order.
        """
        session = Session.from_dict(self._order.masking)
        check_round(session, self._order)
        limits = read_site_config(self._root).policy.runs or RunLimits()
        self._accept(session, limits)
        before = self._store.before()
        step = stages.advertise(
            session,
            site=self._join.site,
            key=self._keys.signing(),
            pinned={**self._join.peers, self._join.site: self._join.signing_key},
            before=before,
            most_share=limits.most_share,
        )
        return self._answer(before, step)

    def share(self) -> Report:
        """Shares of this site's two secrets, sealed for its peers.

        Raises:
            SecaggError, SignatureError: see `protocol.secagg.site.share`.
        """
        state, roster = self._given(Roster)
        return self._answer(state, stages.share(state, roster, key=self._keys.signing()))

    def mask(
        self, base: Mapping[str, np.ndarray[Any, Any]], train: Callable[[Order], tuple[Report, Arrays]]
    ) -> tuple[Report, Arrays]:
        """The masked update beside its report. `train` gives it for the round's order; it is asked once a round.

        Raises:
            SecaggError, UpdateError: see `protocol.secagg.site.mask`.
        """
        state, inbox = self._given(Inbox)
        session = session_of(state)
        if digest_under(base, session.schema_digest) != session.base_digest:
            raise StaleError("the weights that came are not those of the session; the server must begin the round anew")
        asked = self._order.of_round
        key = hashlib.sha256(to_json(asked).encode()).hexdigest()
        metrics: dict[str, float] = {}

        def update() -> Arrays:
            told, arrays = self._store.update(lambda: train(asked), key)
            metrics.update(told)
            return arrays

        generator = np.random.default_rng()
        step = stages.mask(state, inbox, key=self._keys.signing(), update=update, generator=generator)
        if not step.repeated:
            self._log.info("masked an update of %d numbers; %d were clipped", session.values, step.clipped)
        return self._masked(state, step, metrics)

    def agree(self) -> Report:
        """This site's word on whose vectors are in the sum.

        Raises:
            SecaggError: see `protocol.secagg.site.agree`.
        """
        state, survivors = self._given(Survivors)
        return self._answer(state, stages.agree(state, survivors, key=self._keys.signing()))

    def unmask(self) -> Report:
        """The shares that open the sum; vector and update are erased.

        Raises:
            SecaggError, SignatureError: see `protocol.secagg.site.unmask`.
        """
        state, accord = self._given(Accord)
        report = self._answer(state, stages.unmask(state, accord, key=self._keys.signing()))
        self._store.forget_arrays()
        return report

    def _accept(self, session: Session, limits: RunLimits) -> None:
        """Return only if this site takes part in the session on these terms; those of other trainings are over then.

        Raises:
            GateError, SecaggError: it does not.
        """
        check_terms(session, self._join, limits)
        end_other_runs(self._root, self._order.run_id)

    def _masked(self, before: State, step: Step[Masked], metrics: Mapping[str, float]) -> tuple[Report, Arrays]:
        """The words of the stage `mask`, on the disk before they leave, and those that are there where it was done."""
        if step.vector is None:
            words, metrics = self._store.vector(step.message.vector), self._store.metrics()
        else:
            words = step.vector
            self._store.keep_vector(words)
            self._store.keep(step.state, before, metrics)
        weight = session_of(before).weights[self._join.site]
        return self._report(step.message, examples=weight, metrics=metrics), {words.dtype.name: words}

    def _given(self, cls: type[Given]) -> tuple[State, Given]:
        """The state of the stage before, and what the server forwarded.

        Raises:
            StageError: this site is in no session of the run, or its state cannot be used.
            MessageError: the server forwarded something else.
        """
        state = self._store.state()
        check_round(session_of(state), self._order)
        return state, cls.from_dict(self._order.masking)

    def _answer(self, before: State | None, step: Step[Any]) -> Report:
        if not step.repeated:
            self._store.keep(step.state, before)
        return self._report(step.message)

    def _report(self, message: FromSite, examples: int = 0, metrics: Mapping[str, float] | None = None) -> Report:
        order = self._order
        return Report(
            run_id=order.run_id,
            round=order.round,
            attempt=order.attempt,
            site=self._join.site,
            examples=examples,
            metrics=metrics or {},
            base_digest=order.base_digest,
            masking=message.to_dict(),
        )


def check_round(session: Session, order: Order) -> None:
    """Return only if the session is of the order's run, round, attempt and base, and serves the same end.

    Raises:
        StaleError, SessionError: it is not, or does not.
    """
    for name in ("run_id", "round", "attempt", "base_digest"):
        if getattr(session, name) != getattr(order, name):
            raise StaleError(f"the session has another {name} than the order; the server must begin the round anew")
    # Each kind is accepted on other terms, so that no stage of the one may end the other.
    if (session.base_digest == STATISTICS_DIGEST) != order.statistics:
        raise SessionError("the order is to train and the session sums counts, or the other way round")


def check_terms(session: Session, join: Join, limits: RunLimits) -> None:
    """Return only if the session covers this site's update as its limits ask, and weighs it as it is enrolled.

    Raises:
        GateError: too few sites take part, or it holds against too few that collude.
        SessionError: the site has another weight than the one that is pinned.
    """
    check_cover(session, limits)
    if (weight := session.weights.get(join.site)) != join.units:
        raise SessionError(
            f"the session weighs {join.site} with {weight}, and its join file with {join.units}; take the operator's "
            "newest join file in"
        )


def check_cover(session: Session, limits: RunLimits) -> None:
    """Return only if enough sites take part, and it holds against enough that collude.

    Raises:
        GateError: it does not.
    """
    if len(session.sites) < limits.min_sites:
        raise GateError(
            "policy_min_sites",
            f"the session has {len(session.sites)} sites, and this site hides among no fewer than {limits.min_sites} "
            "(policy.runs.min_sites)",
        )
    if session.colluding < limits.colluding:
        raise GateError(
            "policy_colluding",
            f"the session holds against {session.colluding} colluding sites, and this site asks for {limits.colluding} "
            "(policy.runs.colluding; secagg.colluding at the server)",
        )
