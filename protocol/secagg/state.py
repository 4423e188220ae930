"""What a site keeps between the stages, each of which is a process of its own: plain JSON values, most of them secret.

Whoever calls writes the state to a file of mode 0600 *before* a reply is sent, and `erase`s it after the round. The
masked vector is not in it: it is written beside the state, also before it is sent, and sent again from there.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from protocol.errors import StaleError, VersionError
from protocol.secagg.content import VERSION, Content
from protocol.secagg.errors import ReplayError, RevealedError, SessionError, StageError
from protocol.secagg.messages import STAGES, FromSite
from protocol.secagg.session import Session
from protocol.signing import canonical

State = dict[str, Any]
Reply = TypeVar("Reply", bound=FromSite)
ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Step(Generic[Reply]):
    """What a stage comes to."""

    message: Reply
    """To send, once the state is on the disk."""
    state: State
    """To keep in the place of the one before."""
    vector: np.ndarray[Any, Any] | None = None
    """The masked words that travel beside, of stage `mask`; absent where the stage had been done before."""
    clipped: int = 0
    """Coordinates of the update that were cut to the clip range. For the site's own log alone."""
    repeated: bool = False
    """The stage had been done: the message is the stored one, and a stored vector goes with it."""


def begun(session: Session, site: str, secrets: Mapping[str, str], message: FromSite) -> State:
    """The state after the first stage."""
    return {
        "version": VERSION,
        "session": session.to_dict(),
        "site": site,
        "stage": STAGES[0],
        "revealed": False,
        "inputs": {STAGES[0]: _digest(session)},
        "replies": {STAGES[0]: message.to_dict()},
        "public": {},
        "secrets": dict(secrets),
    }


def session_of(state: State) -> Session:
    """The session that a state belongs to.

    Raises:
        VersionError: another version wrote the state.
        StageError: the round has ended here.
    """
    if state.get("version") != VERSION:
        raise VersionError(f"the state has version {state.get('version')!r:.20}, not {VERSION}; start the round anew")
    if state["stage"] == ENDED:
        raise StageError("the round has ended at this site, and its secrets are erased; wait for the next round")
    return Session.from_dict(state["session"])


def stored(state: State, stage: str, content: Content, cls: type[Reply]) -> Step[Reply] | None:
    """The reply that was given to the same input before, or None where it is the stage's turn.

    Raises:
        ReplayError: the stage was done with another input.
        StageError: it is another stage's turn.
    """
    before = state["inputs"].get(stage)
    if before is None:
        if STAGES.index(stage) != STAGES.index(state["stage"]) + 1:
            raise StageError(f"the stage '{stage}' cannot follow '{state['stage']}'; the order is {', '.join(STAGES)}")
        return None
    if before != _digest(content):
        raise ReplayError(
            f"the stage '{stage}' was answered already and is asked for again with another input; a stage is done "
            "once, and a new attempt has new keys"
        )
    return Step(message=cls.from_dict(state["replies"][stage]), state=state, repeated=True)


def advanced(
    state: State,
    stage: str,
    content: Content,
    message: FromSite,
    *,
    secrets: Mapping[str, Any],
    public: Mapping[str, Any] | None = None,
    revealed: bool = False,
) -> State:
    """The state after a stage: of the secrets only those that later stages need."""
    return {
        **state,
        "stage": stage,
        "revealed": revealed,
        "inputs": {**state["inputs"], stage: _digest(content)},
        "replies": {**state["replies"], stage: message.to_dict()},
        "public": {**state["public"], **(public or {})},
        "secrets": dict(secrets),
    }


def erase(state: State) -> State:
    """Empty the state, and return what is kept of it instead: which attempt it was, and whether shares were revealed.

    Keep it until a later session of the same run begins: `site.advertise` asks for it. Python cannot overwrite its
    texts in memory; end the process, and overwrite or unlink the file.
    """
    session = state["session"]
    terms = {name: session[name] for name in ("run_id", "round", "attempt")}
    ended = {"version": VERSION, "session": terms, "stage": ENDED, "revealed": state["revealed"]}
    state.clear()
    return ended


def check_follows(session: Session, before: State) -> None:
    """Return only if a site whose last state was `before` may take part in the session.

    Raises:
        RevealedError: shares of another attempt at this round were revealed.
        StaleError: it is not later than the last one of its run.
        SessionError: the state is of another run; each run has its own.
    """
    last = before["session"]
    if last["run_id"] != session.run_id:
        raise SessionError(f"the last state is of run {last['run_id']}, not {session.run_id}; keep one for each run")
    if before["revealed"] and last["round"] == session.round:
        raise RevealedError(
            f"this site has revealed its shares in attempt {last['attempt']} at round {session.round}; two sums of one "
            "round could tell a single update; go on with the next round"
        )
    if (session.round, session.attempt) <= (last["round"], last["attempt"]):
        raise StaleError(
            f"round {session.round}, attempt {session.attempt} is asked for, and this site was in round "
            f"{last['round']}, attempt {last['attempt']}; start a later attempt"
        )


def _digest(content: Content) -> str:
    return hashlib.sha256(canonical(content.to_dict())).hexdigest()
