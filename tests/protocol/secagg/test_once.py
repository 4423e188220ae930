"""What a site does once, reveals once, resends and forgets."""

import dataclasses
import json

import pytest

from protocol.errors import StaleError, VersionError
from protocol.secagg import site as stages
from protocol.secagg.errors import (
    ConsistencyError,
    ReplayError,
    RevealedError,
    SessionError,
    StageError,
)
from protocol.secagg.messages import Accord, Agreement, Masked, Survivors, signed
from protocol.secagg.state import erase
from tests.protocol.secagg.federation import (
    STAGES,
    Round,
    advertise,
    answer,
    identity,
    prepared,
    session,
    updates,
    wire,
)

# One share of two.


def test_a_reveal_holds_one_share_of_every_site_and_never_two():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    round_.mask(update, terms.sites[:4])
    round_.agree(terms.sites[:4])
    reveal = answer("unmask", round_, round_.server.accord()).message
    assert reveal.self_seeds.keys() == set(terms.sites[:4])
    assert reveal.mask_keys.keys() == {"fir"}
    with pytest.raises(SessionError, match="both secrets of fir"):
        dataclasses.replace(reveal, self_seeds=reveal.self_seeds | {"fir": "0" * 64})


def test_the_other_share_is_refused_even_to_a_valid_accord_of_all_other_sites():
    """The server has the keys of every other site, and still gets one share of each site from ash."""
    terms = session(5)
    round_ = Round(terms).until_agreed(updates(terms))
    step = answer("unmask", round_, round_.server.accord())
    fewer = {"sharers": terms.sites, "survivors": terms.sites[:4]}
    valid = tuple(signed(Agreement, terms, n, identity(n), **fewer) for n in terms.sites[:4])
    other = Accord(session=terms.digest, agreements=valid)
    with pytest.raises(ReplayError, match="asked for again with another input"):
        stages.unmask(step.state, other, key=identity("ash"))
    with pytest.raises(ConsistencyError):
        answer("unmask", round_, other)
    with pytest.raises(ReplayError):
        answer("agree", round_, Survivors(session=terms.digest, sites=terms.sites[:4]))


# Once.


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_that_is_asked_for_again_gives_the_stored_bytes(stage):
    terms = session(3)
    update = updates(terms)
    round_, content = prepared(stage, terms, update)
    first = answer(stage, round_, content, update)
    round_.states["ash"] = json.loads(json.dumps(first.state))
    other_update = updates(terms, seed=1)
    again = answer(stage, round_, wire(content), other_update)
    assert again.repeated
    assert again.vector is None
    assert (again.message, again.state) == (first.message, round_.states["ash"])


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_is_not_done_again_with_another_input(stage):
    terms = session(5)
    update = updates(terms)
    round_, content = prepared(stage, terms, update)
    round_.states["ash"] = answer(stage, round_, content, update).state
    less = {
        "share": lambda c: dataclasses.replace(c, keys=c.keys[:4]),
        "mask": lambda c: dataclasses.replace(c, sealed=dict(list(c.sealed.items())[:3])),
        "agree": lambda c: dataclasses.replace(c, sites=c.sites[:4]),
        "unmask": lambda c: dataclasses.replace(c, agreements=c.agreements[:4]),
    }
    with pytest.raises(ReplayError, match=f"'{stage}' was answered already"):
        answer(stage, round_, less[stage](content), update)


@pytest.mark.parametrize(("stage", "after"), [("mask", "advertise"), ("agree", "share"), ("unmask", "mask")])
def test_a_stage_out_of_turn_is_refused(stage, after):
    terms = session(3)
    update = updates(terms)
    _, content = prepared(stage, terms, update)
    early = Round(terms)
    for name in STAGES[: STAGES.index(after) + 1]:
        getattr(early, name)(*((update,) if name == "mask" else ()))
    with pytest.raises(StageError, match=f"'{stage}' cannot follow '{after}'"):
        answer(stage, early, content, update)


def test_advertising_twice_gives_the_same_keys_and_a_new_attempt_gives_new_ones():
    terms = session(3)
    first = advertise(terms)
    again = advertise(wire(terms), before=json.loads(json.dumps(first.state)))
    assert again.repeated
    assert again.message == first.message
    later = advertise(session(3, attempt=2), before=first.state)
    assert {later.message.sealing, later.message.masking}.isdisjoint({first.message.sealing, first.message.masking})


def test_a_session_that_is_not_later_than_the_last_is_refused():
    state = advertise(session(3, round=3, attempt=2)).state
    for changes in ({"round": 3, "attempt": 1}, {"round": 2, "attempt": 9}, {"round": 3, "attempt": 2, "values": 7}):
        with pytest.raises(StaleError, match="start a later attempt"):
            advertise(session(3, **changes), before=state)
        with pytest.raises(StaleError):
            advertise(session(3, **changes), before=erase(dict(state)))
    with pytest.raises(SessionError, match="keep one for each run"):
        advertise(session(3, run_id="run-2"), before=state)


@pytest.mark.parametrize("erased", [False, True])
def test_a_site_that_has_revealed_shares_joins_no_other_attempt_at_the_round(erased):
    terms = session(3)
    round_ = Round(terms).until_agreed(updates(terms))
    round_.unmask()
    state = round_.states["ash"]
    before = erase(state) if erased else state
    with pytest.raises(RevealedError, match="two sums of one round"):
        advertise(session(3, attempt=2), before=before)
    advertise(session(3, round=3), before=before)


# Forgetting.


def secrets_of(states):
    """Every secret text that the states of a round have held."""
    return {text for state in states for text in texts(state["secrets"])}


def texts(value):
    return [text for item in value.values() for text in texts(item)] if isinstance(value, dict) else [value]


def test_secrets_go_as_soon_as_no_stage_needs_them_and_all_with_the_round():
    terms = session(3)
    round_, update, seen = Round(terms), updates(terms), []
    for name in STAGES:
        getattr(round_, name)(*((update,) if name == "mask" else ()))
        seen.append(json.loads(json.dumps(round_.states["ash"])))
    kept = [sorted(state["secrets"]) for state in seen]
    assert kept == [["masking", "sealing"], ["masking", "sealing", "seed", "shares"], ["shares"], ["shares"], []]
    assert len(secrets_of(seen)) == 6
    masking = seen[0]["secrets"]["masking"]
    assert all(masking not in json.dumps(state) for state in seen[2:])

    last = round_.states["ash"]
    ended = erase(last)
    assert last == {}
    assert ended.keys() == {"version", "session", "stage", "revealed"}
    halves = {text[start : start + 64] for text in secrets_of(seen) for start in range(0, len(text), 64)}
    assert all(half not in json.dumps(ended) for half in halves)


@pytest.mark.parametrize("stage", STAGES[1:])
def test_nothing_follows_the_end_of_a_round(stage):
    terms = session(3)
    update = updates(terms)
    round_, content = prepared(stage, terms, update)
    round_.states["ash"] = erase(round_.states["ash"])
    with pytest.raises(StageError, match="has ended at this site"):
        answer(stage, round_, content, update)


def test_a_state_of_another_version_is_refused():
    round_, roster = prepared("share", session(3), None)
    round_.states["ash"]["version"] = 2
    with pytest.raises(VersionError):
        answer("share", round_, roster)


def test_no_secret_is_in_a_message_before_the_last_stage():
    terms = session(3)
    round_, update, secret, sent = Round(terms), updates(terms), set(), []
    for name in STAGES[:4]:
        getattr(round_, name)(*((update,) if name == "mask" else ()))
        state = round_.states["ash"]
        secret |= secrets_of([state])
        sent.append(json.dumps(state["replies"]))
    assert all(text not in message for text in secret for message in sent)


def test_a_masked_message_names_its_vector():
    terms = session(3)
    round_ = Round(terms).until_masked(updates(terms))
    message = Masked.from_dict(round_.states["ash"]["replies"]["mask"])
    assert len(message.vector) == 64
