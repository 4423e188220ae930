"""Whom and what a site refuses to work with."""

import dataclasses

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import NotFiniteError, SignatureError, StaleError
from protocol.secagg import site as stages
from protocol.secagg.errors import (
    AgreementKeyError,
    ConsistencyError,
    PinError,
    ShareError,
    ShareOfSumError,
    ThresholdError,
)
from protocol.secagg.messages import Accord, Agreement, Inbox, Keys, Roster, Survivors, signed
from protocol.signing import fingerprint, new_key, public_hex
from tests.protocol.secagg.federation import STAGES, Round, advertise, answer, identity, prepared, session, updates

# Keys and sessions.


def test_pinned_fingerprints_serve_as_well_as_pinned_keys():
    terms = session(3)
    advertise(terms, pinned={name: fingerprint(key) for name, key in terms.keys.items()})


def test_a_site_that_is_not_pinned_is_refused_by_name():
    terms = session(3)
    with pytest.raises(PinError, match=r"the site birch \(.*\) is not pinned here"):
        advertise(terms, pinned={n: k for n, k in terms.keys.items() if n != "birch"})


def test_a_key_that_is_not_the_pinned_one_is_refused():
    terms = session(3)
    with pytest.raises(PinError, match="for the site birch, and another is pinned"):
        advertise(terms, pinned=terms.keys | {"birch": public_hex(new_key())})


def test_a_session_that_names_this_site_with_another_key_is_refused():
    terms = session(3)
    with pytest.raises(PinError, match="ash, with its own key"):
        advertise(terms, key=new_key())
    with pytest.raises(PinError, match="yew, with its own key"):
        advertise(terms, site="yew")


def test_weights_that_would_lay_this_site_s_update_open_are_refused():
    terms = session(5, weights={"ash": 2**40, "birch": 1, "cedar": 1, "elm": 1, "fir": 2**40})
    with pytest.raises(ShareOfSumError, match=r"100.0% of the weight of a sum, above its limit of 90.0%"):
        advertise(terms)
    stages.advertise(terms, site="birch", key=identity("birch"), pinned=terms.keys)
    with pytest.raises(ShareOfSumError, match=r"33.3% .* above its limit of 30.0%"):
        advertise(session(5, weights=dict.fromkeys(terms.sites, 7)), most_share=0.3)


def test_forged_keys_of_a_peer_are_refused():
    terms = session(3)
    round_, roster = prepared("share", terms, None)
    own = Ed25519PrivateKey.generate()
    forged = signed(Keys, terms, "birch", own, sealing="1" * 64, masking="2" * 64)
    keys = (roster.keys[0], forged, roster.keys[2])
    with pytest.raises(SignatureError, match="not of the key"):
        answer("share", round_, dataclasses.replace(roster, keys=keys))


@pytest.mark.parametrize("field", ["sealing", "masking"])
def test_swapped_keys_of_a_peer_are_refused(field):
    round_, roster = prepared("share", session(3), None)
    first, second, third = roster.keys
    swapped = dataclasses.replace(second, **{field: getattr(third, field)})
    with pytest.raises(SignatureError):
        answer("share", round_, dataclasses.replace(roster, keys=(first, swapped, third)))


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "run-2"},
        {"round": 3},
        {"attempt": 2},
        {"base_digest": "c" * 64},
        {"schema_digest": "c" * 64},
        {"threshold": 3},
        {"weights": {"ash": 1, "birch": 2, "cedar": 3}},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("stage", STAGES[1:])
def test_what_belongs_to_another_session_is_refused_at_every_stage(stage, change):
    update = updates(session(3))
    round_, _ = prepared(stage, session(3), update)
    _, foreign = prepared(stage, session(3, **change), update)
    with pytest.raises(StaleError, match="start the round anew"):
        answer(stage, round_, foreign, update)


def test_another_attempt_s_shares_and_signatures_are_worth_nothing_under_this_session_s_name():
    update = updates(session(3))
    for stage, error in (("mask", ShareError), ("unmask", SignatureError)):
        round_, content = prepared(stage, session(3), update)
        _, foreign = prepared(stage, session(3, attempt=2), update)
        if stage == "unmask":
            renamed = [dataclasses.replace(a, session=content.session) for a in foreign.agreements]
            foreign = dataclasses.replace(foreign, agreements=tuple(renamed))
        with pytest.raises(error):
            answer(stage, round_, dataclasses.replace(foreign, session=content.session), update)


def test_keys_signed_in_another_attempt_are_refused_under_this_session_s_name():
    round_, roster = prepared("share", session(3), None)
    _, other = prepared("share", session(3, attempt=2), None)
    keys = (roster.keys[0], dataclasses.replace(other.keys[1], session=roster.session), roster.keys[2])
    with pytest.raises(SignatureError):
        answer("share", round_, Roster(session=roster.session, keys=keys))


def test_a_roster_without_this_site_or_with_another_twice_is_refused():
    round_, roster = prepared("share", session(4), None)
    for keys in (roster.keys[1:], (*roster.keys[:3], roster.keys[2])):
        with pytest.raises(ConsistencyError):
            answer("share", round_, dataclasses.replace(roster, keys=keys))


def test_too_small_a_roster_is_refused():
    round_, roster = prepared("share", session(5), None)
    with pytest.raises(ThresholdError, match="2 of 5 sites advertised keys, and 3 are needed"):
        answer("share", round_, dataclasses.replace(roster, keys=roster.keys[:2]))


def test_a_mask_key_that_leads_to_a_known_secret_is_refused():
    terms = session(3)
    round_, roster = prepared("share", terms, None)
    step = stages.advertise(terms, site="birch", key=identity("birch"), pinned=terms.keys)
    weak = signed(Keys, terms, "birch", identity("birch"), sealing="0" * 64, masking=step.message.masking)
    with pytest.raises(AgreementKeyError):
        answer("share", round_, dataclasses.replace(roster, keys=(roster.keys[0], weak, roster.keys[2])))


# Shares.


def test_a_changed_ciphertext_is_refused_wherever_it_was_changed():
    update = updates(session(3))
    round_, inbox = prepared("mask", session(3), update)
    for place in (0, 30, 100, 183):
        text = inbox.sealed["birch"]
        changed = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        with pytest.raises(ShareError, match="from birch to ash were changed"):
            answer("mask", round_, dataclasses.replace(inbox, sealed=inbox.sealed | {"birch": changed}), update)


def test_ciphertexts_of_two_peers_in_each_other_s_place_are_refused():
    update = updates(session(3))
    round_, inbox = prepared("mask", session(3), update)
    swapped = {"birch": inbox.sealed["cedar"], "cedar": inbox.sealed["birch"]}
    with pytest.raises(ShareError):
        answer("mask", round_, dataclasses.replace(inbox, sealed=swapped), update)


def test_shares_from_nobody_on_the_roster_are_refused():
    update = updates(session(3))
    round_, inbox = prepared("mask", session(3), update)
    with pytest.raises(ConsistencyError, match="from yew"):
        answer("mask", round_, dataclasses.replace(inbox, sealed=inbox.sealed | {"yew": "0" * 184}), update)


def test_too_few_shares_are_refused():
    terms = session(5)
    update = updates(terms)
    round_, inbox = prepared("mask", terms, update)
    with pytest.raises(ThresholdError, match="2 of 5 sites shared"):
        answer("mask", round_, Inbox(session=terms.digest, sealed={"birch": inbox.sealed["birch"]}), update)


def test_an_update_that_is_not_finite_is_refused_and_can_be_mended():
    terms = session(3)
    update = updates(terms)
    round_, inbox = prepared("mask", terms, update)
    bad = {"float32": update["ash"]["float32"].copy()}
    bad["float32"][3] = np.nan
    with pytest.raises(NotFiniteError):
        answer("mask", round_, inbox, {"ash": bad})
    assert not answer("mask", round_, inbox, update).repeated


def test_clipped_coordinates_are_counted_for_the_site_alone():
    terms = session(3)
    update = updates(terms)
    round_, inbox = prepared("mask", terms, update)
    update["ash"]["float32"][:7] = 3.0
    step = answer("mask", round_, inbox, update)
    assert step.clipped == 7
    assert "clipped" not in step.message.to_dict()


# Agreement.


def test_a_set_of_survivors_without_this_site_is_refused():
    terms = session(5)
    round_, survivors = prepared("agree", terms, updates(terms))
    with pytest.raises(ConsistencyError, match="helps to open no sum that it is not in"):
        answer("agree", round_, dataclasses.replace(survivors, sites=terms.sites[1:]))


def test_survivors_that_never_shared_or_are_too_few_are_refused():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share(terms.sites[:4])
    round_.mask(update, terms.sites[:4])
    with pytest.raises(ConsistencyError, match="from fir"):
        answer("agree", round_, Survivors(session=terms.digest, sites=terms.sites))
    with pytest.raises(ThresholdError, match="2 of 5"):
        answer("agree", round_, Survivors(session=terms.digest, sites=("ash", "birch")))


def test_a_server_that_tells_two_sets_of_survivors_learns_no_share():
    terms = session(5, colluding=1)
    round_ = Round(terms).until_masked(updates(terms))
    one, other = terms.sites[:4], terms.sites
    told = dict.fromkeys(("ash", "birch"), one) | dict.fromkeys(("cedar", "elm", "fir"), other)
    steps = {}
    for name, sites in told.items():
        content = Survivors(session=terms.digest, sites=sites)
        steps[name] = stages.agree(round_.states[name], content, key=identity(name))
    accord = Accord(session=terms.digest, agreements=tuple(steps[name].message for name in terms.sites[:4]))
    for name in terms.sites:
        with pytest.raises(ConsistencyError):
            stages.unmask(steps[name].state, accord, key=identity(name))
        alike = tuple(s.message for n, s in steps.items() if told[n] == told[name])
        with pytest.raises(ThresholdError, match="sites agreed, and 4 are needed"):
            stages.unmask(steps[name].state, Accord(session=terms.digest, agreements=alike), key=identity(name))


def test_a_server_that_tells_sites_of_different_sharers_learns_no_share():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    inbox = round_.server.inbox("ash")
    fewer = dataclasses.replace(inbox, sealed={n: s for n, s in inbox.sealed.items() if n != "fir"})
    step = answer("mask", round_, fewer, update)
    others = [n for n in terms.sites if n not in ("ash", "fir")]
    round_.mask(update, others)
    survivors = Survivors(session=terms.digest, sites=("ash", *others))
    agreed = {"ash": stages.agree(step.state, survivors, key=identity("ash"))}
    agreed |= {n: stages.agree(round_.states[n], survivors, key=identity(n)) for n in others}
    accord = Accord(session=terms.digest, agreements=tuple(s.message for s in agreed.values()))
    for name, stage in agreed.items():
        with pytest.raises(ConsistencyError, match="was told of"):
            stages.unmask(stage.state, accord, key=identity(name))


def test_an_accord_with_a_forged_a_doubled_or_a_stranger_s_signature_is_refused():
    terms = session(5)
    update = updates(terms)
    round_ = Round(terms)
    round_.advertise()
    round_.share()
    round_.mask(update, terms.sites[:4])
    round_.agree(terms.sites[:4])
    accord = round_.server.accord()
    first = accord.agreements[1]
    said = {"sharers": first.sharers, "survivors": first.survivors}
    forged = signed(Agreement, terms, "birch", identity("cedar"), **said)
    with pytest.raises(SignatureError):
        answer("unmask", round_, dataclasses.replace(accord, agreements=(accord.agreements[0], forged)))
    with pytest.raises(ConsistencyError, match="twice"):
        answer("unmask", round_, dataclasses.replace(accord, agreements=(first, first, first)))
    stranger = signed(Agreement, terms, "fir", identity("fir"), **said)
    with pytest.raises(ConsistencyError, match="from fir"):
        answer("unmask", round_, dataclasses.replace(accord, agreements=(*accord.agreements, stranger)))
    with pytest.raises(ThresholdError, match="2 of 5 sites agreed"):
        answer("unmask", round_, dataclasses.replace(accord, agreements=accord.agreements[:2]))
