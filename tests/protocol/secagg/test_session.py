import itertools
from fractions import Fraction

import pytest

from protocol.errors import MessageError
from protocol.secagg.errors import RangeError, SessionError
from protocol.secagg.fixed_point import FixedPoint
from protocol.secagg.session import Session, threshold_for
from protocol.signing import public_hex
from tests.protocol.secagg.federation import identity, session, wire


def test_the_threshold_is_the_least_with_twice_it_above_sites_and_colluders():
    for sites in range(3, 30):
        for colluding in range(sites - 1):
            threshold = threshold_for(sites, colluding)
            assert 2 * threshold > sites + colluding >= 2 * (threshold - 1)
            assert colluding + 2 <= threshold <= sites


def test_two_quorums_always_share_a_site_that_does_not_collude():
    """What the inequality is for, counted: colluders answer twice, the others once."""
    for sites in range(3, 30):
        for colluding in range(sites - 1):
            honest = sites - colluding
            assert 2 * (threshold_for(sites, colluding) - colluding) > honest


@pytest.mark.parametrize(("sites", "colluding"), [(2, 0), (1, 0), (3, 2), (5, 4), (5, -1)])
def test_too_few_sites_are_refused(sites, colluding):
    with pytest.raises(SessionError, match="enrol more sites"):
        threshold_for(sites, colluding)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"threshold": 2}, SessionError, r"must be from 3 \(2t > n \+ c\) to 5"),
        ({"threshold": 6}, SessionError, "to 5"),
        ({"threshold": 3, "colluding": 1}, SessionError, "must be from 4"),
        ({"weights": {"ash": 1}}, SessionError, "exactly the sites"),
        ({"keys": dict.fromkeys(("ash", "birch", "cedar"), "0" * 64)}, SessionError, "same key|count twice"),
        ({"run_id": "../x"}, MessageError, "session.run_id"),
        ({"round": 0}, MessageError, "session.round is 0"),
        ({"attempt": 0}, MessageError, "session.attempt is 0"),
        ({"values": 0}, MessageError, "session.values is 0"),
        ({"values": 2**32 + 1}, MessageError, "session.values"),
        ({"base_digest": "x"}, MessageError, "session.base_digest"),
        ({"schema_digest": "A" * 64}, MessageError, "session.schema_digest"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_session_that_cannot_be_is_refused(changes, error, text):
    with pytest.raises(error, match=text):
        session(5, **({"threshold": 2} if "keys" in changes else {}) | changes)


@pytest.mark.parametrize("weight", [0, -1, 2**40 + 1])
def test_an_impossible_weight_is_refused_by_its_site(weight):
    with pytest.raises(SessionError, match="first that of birch"):
        session(3, weights={"ash": 1, "birch": weight, "cedar": 1})


def test_a_session_whose_sum_could_wrap_is_refused():
    wide = FixedPoint(clip=1.0, fraction_bits=31, word_bits=32, rounding="nearest")
    with pytest.raises(RangeError, match="use fewer fraction bits"):
        session(3, fixed_point=wide)


def test_more_colluders_than_leave_two_honest_sites_are_refused():
    with pytest.raises(SessionError, match="the sum of one site is its update"):
        Session.from_dict({**session(3).to_dict(), "colluding": 2, "threshold": 3})


def test_a_session_survives_json_with_the_same_digest():
    terms = session(4)
    assert wire(terms) == terms
    assert wire(terms).digest == terms.digest


def test_every_term_is_in_the_digest():
    terms = session(4)
    fixed = FixedPoint(clip=1.0, fraction_bits=20, word_bits=32, rounding="nearest")
    changes = {
        "run_id": "run-2",
        "round": 3,
        "attempt": 2,
        "keys": terms.keys | {"ash": public_hex(identity("other"))},
        "weights": terms.weights | {"ash": 7},
        "colluding": 1,
        "threshold": 4,
        "schema_digest": "c" * 64,
        "base_digest": "c" * 64,
        "values": 7,
        "fixed_point": fixed,
    }
    assert changes.keys() | {"kind", "version"} == terms.to_dict().keys()
    digests = {
        session(4, **({name: value} | ({"threshold": 3}))).digest
        for name, value in changes.items()
        if name != "threshold"
    }
    digests |= {session(4, threshold=4).digest, terms.digest}
    assert len(digests) == len(changes) + 1


def test_the_order_in_which_sites_are_named_changes_nothing():
    terms = session(4)
    backwards = session(4, keys=dict(reversed(terms.keys.items())), weights=dict(reversed(terms.weights.items())))
    assert backwards.digest == terms.digest
    assert [terms.index(site) for site in terms.sites] == [1, 2, 3, 4]


def test_the_worst_share_of_a_site_is_beside_the_lightest_sites_that_do_not_collude():
    weights = {"ash": 60, "birch": 1, "cedar": 2, "elm": 4, "fir": 8}
    assert session(5, weights=weights).worst_share("ash") == Fraction(60, 60 + 1 + 2)
    assert session(5, colluding=1, weights=weights).worst_share("ash") == Fraction(60, 60 + 1 + 2)
    assert session(5, colluding=2, weights=weights).worst_share("ash") == Fraction(60, 60 + 1)
    assert session(5, weights=weights).worst_share("birch") == Fraction(1, 1 + 2 + 4)


def test_the_worst_share_is_that_of_the_worst_choice_of_survivors_and_colluders():
    for colluding in range(3):
        terms = session(5, colluding)
        for site in terms.sites:
            others = [s for s in terms.sites if s != site]
            shares = [
                Fraction(terms.weights[site], terms.weights[site] + sum(terms.weights[s] for s in honest))
                for size in range(terms.threshold - 1, len(others) + 1)
                for survivors in itertools.combinations(others, size)
                for honest in itertools.combinations(survivors, size - colluding)
            ]
            assert terms.worst_share(site) == max(shares)
