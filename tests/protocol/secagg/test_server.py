"""What the server sees, what it refuses, and what it cannot open."""

import dataclasses

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy.stats import chi2

from protocol.errors import DtypeError, MessageError, ShapeError, SignatureError, StaleError
from protocol.secagg import site as stages
from protocol.secagg.errors import (
    AgreementKeyError,
    ConsistencyError,
    ReplayError,
    SessionError,
    ShareError,
    StageError,
    ThresholdError,
)
from protocol.secagg.messages import Agreement, Keys, Masked, Reveal, Shares, signed
from protocol.secagg.server import Aggregator
from tests.protocol.secagg.federation import STAGES, Round, as_integers, identity, integer_sum, session, updates

SIGNIFICANCE = 1e-6


def reply(round_, stage, site="ash"):
    """The message that the site has sent in the stage."""
    kind = {"advertise": Keys, "share": Shares, "mask": Masked, "agree": Agreement, "unmask": Reveal}[stage]
    return kind.from_dict(round_.states[site]["replies"][stage])


def bytes_statistic(words):
    """Pearson's statistic of the bytes against the uniform distribution; about 255."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(((counts - expected) ** 2 / expected).sum())


def looks_uniform(words):
    return bytes_statistic(words) < chi2.isf(SIGNIFICANCE, 255)


# What it sees.


def test_every_masked_vector_and_every_partial_sum_looks_uniformly_random():
    terms = session(4, values=200_000)
    update = {name: {"float32": np.zeros(terms.values, np.float32)} for name in terms.sites}
    round_ = Round(terms).until_masked(update)
    total = np.zeros(terms.values, np.uint32)
    for name in terms.sites:
        assert looks_uniform(round_.vectors[name])
        total += round_.vectors[name]
        assert looks_uniform(total)
    assert not looks_uniform(integer_words(terms, update))


def integer_words(terms, update):
    return np.array(integer_sum(terms, update, terms.sites), np.int64).astype(np.uint32)


def test_the_difference_of_two_masked_vectors_tells_nothing_either():
    terms = session(3, values=200_000)
    round_ = Round(terms).until_masked(dict.fromkeys(terms.sites, updates(terms)["ash"]))
    assert looks_uniform(round_.vectors["ash"] - round_.vectors["birch"])


def test_the_same_update_is_masked_anew_in_every_attempt():
    update = updates(session(3, values=200_000))
    first, second = (Round(session(3, values=200_000, attempt=a)).until_masked(update) for a in (1, 2))
    assert looks_uniform(first.vectors["ash"] - second.vectors["ash"])


def test_the_sum_without_one_correction_of_a_dropped_site_still_looks_uniform():
    terms = session(3, values=200_000)
    zeros = {name: {"float32": np.zeros(terms.values, np.float32)} for name in terms.sites}
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    round_.mask(zeros, terms.sites[:2])
    assert looks_uniform(round_.vectors["ash"] + round_.vectors["birch"])


# What it refuses.


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_is_counted_once_however_often_it_comes(stage):
    terms = session(3)
    update = updates(terms)
    round_ = Round(terms)
    for name in STAGES:
        getattr(round_, name)(*((update,) if name == "mask" else ()))
        if name == stage:
            again = round_.vectors["ash"] if stage == "mask" else None
            assert round_.server.receive(reply(round_, stage), again) is False
    assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, terms.sites)


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_of_another_attempt_is_refused(stage):
    update = updates(session(3))
    rounds = [Round(session(3, attempt=attempt)) for attempt in (1, 2)]
    for name in STAGES[: STAGES.index(stage) + 1]:
        getattr(rounds[0], name)(*((update,) if name == "mask" else ()))
    old = reply(rounds[0], stage)
    vector = rounds[0].vectors.get("ash")
    with pytest.raises(StaleError, match=r"round 2, attempt 2"):
        rounds[1].server.receive(old, vector)
    with pytest.raises(SignatureError):
        rounds[1].server.receive(dataclasses.replace(old, session=rounds[1].session.digest), vector)


def test_one_site_cannot_answer_as_another():
    terms = session(3)
    server = Aggregator(terms)
    step = stages.advertise(terms, site="ash", key=identity("ash"), pinned=terms.keys)
    with pytest.raises(SignatureError):
        server.receive(dataclasses.replace(step.message, site="birch"))
    stranger = signed(Keys, terms, "yew", Ed25519PrivateKey.generate(), sealing="1" * 64, masking="2" * 64)
    with pytest.raises(SessionError, match="yew is not a site of this session"):
        server.receive(stranger)


def test_keys_that_would_make_every_peer_refuse_are_not_let_in():
    terms = session(3)
    weak = signed(Keys, terms, "birch", identity("birch"), sealing="1" * 64, masking="0" * 64)
    with pytest.raises(AgreementKeyError):
        Aggregator(terms).receive(weak)


def test_a_second_other_message_of_a_stage_is_refused_and_the_first_counts():
    terms = session(3)
    round_ = Round(terms)
    round_.advertise()
    other = stages.advertise(terms, site="ash", key=identity("ash"), pinned=terms.keys).message
    with pytest.raises(ReplayError, match="the first counts"):
        round_.server.receive(other)


def test_a_late_answer_is_refused_and_the_round_goes_on():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    inbox = round_.server.inbox("fir")
    late = stages.mask(round_.states["fir"], inbox, key=identity("fir"), update=lambda: update["fir"])
    round_.mask(update, terms.sites[:4])
    assert round_.server.missing() == ("fir",)
    round_.agree(terms.sites[:4])
    with pytest.raises(StageError, match="'mask', and the round is at 'agree'"):
        round_.server.receive(late.message, late.vector)
    round_.unmask(terms.sites[:4])
    assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, terms.sites[:4])


def test_a_site_that_missed_a_stage_is_out_of_the_round():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share(terms.sites[:4])
    with pytest.raises(StageError, match="fir has not shared"):
        round_.server.inbox("fir")
    round_.mask(update, terms.sites[:4])
    fake = signed(Masked, terms, "fir", identity("fir"), vector="0" * 64)
    fresh = Round(terms)
    fresh.advertise()
    fresh.share(terms.sites[:4])
    fresh.server.inbox("ash")
    with pytest.raises(StageError, match="fir has not answered the stage before 'mask'"):
        fresh.server.receive(fake, round_.vectors["ash"])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda v: None, ShapeError),
        (lambda v: v[:-1], ShapeError),
        (lambda v: v.reshape(1, -1), ShapeError),
        (lambda v: v.astype(np.uint64), DtypeError),
        (lambda v: v.astype(np.int32), DtypeError),
        (lambda v: v.astype(np.float32), DtypeError),
        (lambda v: v + np.uint32(1), ConsistencyError),
    ],
)
def test_a_vector_that_is_not_the_one_described_leaves_the_sum_untouched(change, error):
    terms = session(3)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    step = stages.mask(
        round_.states["ash"], round_.server.inbox("ash"), key=identity("ash"), update=lambda: update["ash"]
    )
    with pytest.raises(error):
        round_.server.receive(step.message, change(step.vector))
    assert round_.server.receive(step.message, step.vector)
    round_.states["ash"] = step.state
    round_.mask(update, terms.sites[1:])
    round_.agree()
    round_.unmask()
    assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, terms.sites)


def test_the_server_keeps_one_vector_however_many_come():
    terms = session(6)
    round_ = Round(terms).until_masked(updates(terms))
    held = [value for value in vars(round_.server).values() if isinstance(value, np.ndarray)]
    assert len(held) == 1


def test_shares_for_other_sites_than_those_of_the_roster_are_refused():
    terms = session(3)
    round_ = Round(terms)
    round_.advertise()
    roster = round_.server.roster()
    step = stages.share(round_.states["ash"], roster, key=identity("ash"))
    fields = {"commitment": step.message.commitment, "sealed": {"birch": step.message.sealed["birch"]}}
    with pytest.raises(ConsistencyError):
        round_.server.receive(signed(Shares, terms, "ash", identity("ash"), **fields))


def test_an_agreement_or_a_reveal_about_other_sites_is_refused():
    terms = session(5)
    round_ = Round(terms).until_masked(updates(terms))
    round_.server.survivors()
    other = {"sharers": terms.sites, "survivors": terms.sites[:3]}
    with pytest.raises(ConsistencyError):
        round_.server.receive(signed(Agreement, terms, "ash", identity("ash"), **other))
    round_.agree()
    round_.server.accord()
    seeds = dict.fromkeys(terms.sites[:4], "0" * 64)
    with pytest.raises(ConsistencyError):
        round_.server.receive(signed(Reveal, terms, "ash", identity("ash"), self_seeds=seeds, mask_keys={}))


@pytest.mark.parametrize("what", ["self_seeds", "mask_keys"])
def test_a_false_share_is_noticed_and_the_sum_stays_closed(what):
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    here = terms.sites[:4]
    round_.mask(update, here)
    round_.agree(here)
    accord = round_.server.accord()
    for name in here:
        message = stages.unmask(round_.states[name], accord, key=identity(name)).message
        if name == "birch":
            fields = {"self_seeds": dict(message.self_seeds), "mask_keys": dict(message.mask_keys)}
            site = next(iter(fields[what]))
            fields[what][site] = "f" * 64
            message = signed(Reveal, terms, name, identity(name), **fields)
        round_.server.receive(message)
    for _ in range(2):
        with pytest.raises(ShareError, match="the sum stays closed"):
            round_.server.open_sum()


def test_nothing_is_forwarded_before_its_stage():
    terms = session(3)
    server = Aggregator(terms)
    for forward in (lambda: server.inbox("ash"), server.survivors, server.accord, server.open_sum, server.merged):
        with pytest.raises(StageError):
            forward()
    with pytest.raises(ThresholdError):
        server.roster()


def test_what_is_forwarded_is_the_same_when_it_is_asked_for_again():
    terms = session(3)
    round_ = Round(terms).until_agreed(updates(terms))
    server = round_.server
    for forward in (server.roster, lambda: server.inbox("ash"), server.survivors, server.accord):
        assert forward() == forward()
    round_.unmask()
    first = server.open_sum().copy()
    np.testing.assert_array_equal(server.open_sum(), first)


def test_a_sum_is_not_opened_while_a_vector_is_lost():
    terms = session(3)
    round_ = Round(terms).until_agreed(updates(terms))
    round_.unmask()
    server = Aggregator.from_dict(round_.server.to_dict())
    with pytest.raises(StageError, match="vectors of ash, birch, cedar were lost"):
        server.open_sum()
    with pytest.raises(MessageError, match="start the round anew"):
        Aggregator.from_dict({"version": 2})


def test_a_vector_that_a_restart_lost_and_nobody_sends_again_is_not_in_the_sum():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms).until_masked(update)
    round_.server = Aggregator.from_dict(round_.server.to_dict())
    here = terms.sites[:4]
    assert round_.server.missing() == terms.sites
    for name in here:
        assert round_.server.receive(reply(round_, "mask", name), round_.vectors[name])
    round_.agree(here)
    round_.unmask(here)
    assert as_integers(round_.server.open_sum()) == integer_sum(terms, update, here)
