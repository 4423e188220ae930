import itertools
import os

import pytest

from protocol.secagg.errors import ShareError
from protocol.secagg.keys import public_of, sealing_key
from protocol.secagg.shares import SEALED_BYTES, combine, open_sealed, seal, split
from tests.protocol.secagg.federation import session
from tests.protocol.secagg.field import at_zero


@pytest.mark.parametrize(("threshold", "sites"), [(2, 3), (3, 4), (4, 5), (4, 6)])
def test_any_threshold_of_shares_gives_the_secret(threshold, sites):
    secret = os.urandom(32)
    shares = dict(enumerate(split(secret, threshold, sites), start=1))
    for size in range(threshold, sites + 1):
        for chosen in itertools.combinations(shares, size):
            assert combine({index: shares[index] for index in chosen}, threshold) == secret


def test_shares_lie_on_two_polynomials_whose_values_at_zero_are_the_secret():
    secret = os.urandom(32)
    shares = list(enumerate(split(secret, 4, 6), start=1))[1:5]
    halves = [
        at_zero([(index, int.from_bytes(share[part], "big")) for index, share in shares]).to_bytes(16, "big")
        for part in (slice(16), slice(16, None))
    ]
    assert b"".join(halves) == secret


def test_one_share_less_than_the_threshold_gives_every_secret_alike():
    """For any t - 1 shares and any other secret there is a last share that leads to it."""
    secret, other = os.urandom(16), os.urandom(16)
    points = [(x, int.from_bytes(share[:16], "big")) for x, share in enumerate(split(secret * 2, 3, 5), start=1)][:2]
    zero = (0, int.from_bytes(other, "big"))
    # The value at 3 of the polynomial through two shares and the other secret, by a shift of the abscissae.
    shifted = [(x ^ 3, y) for x, y in [*points, zero]]
    forged = at_zero(shifted).to_bytes(16, "big")
    shares = {x: y.to_bytes(16, "big") * 2 for x, y in points} | {3: forged * 2}
    assert combine(shares, 3) == other * 2


def test_too_few_shares_are_refused_and_if_taken_as_enough_give_something_else():
    secret = os.urandom(32)
    shares = dict(enumerate(split(secret, 3, 5), start=1))
    for chosen in itertools.combinations(shares, 2):
        some = {index: shares[index] for index in chosen}
        with pytest.raises(ShareError, match="2 shares are there, and 3 are needed"):
            combine(some, 3)
        assert combine(some, 2) != secret


def test_equal_halves_of_a_secret_do_not_show_in_its_shares():
    assert all(share[:16] != share[16:] for share in split(bytes(32), 2, 3))


def sealed_between(terms, content=bytes(64)):
    ash, birch = os.urandom(32), os.urandom(32)
    ends = {"sender": "ash", "receiver": "birch"}
    theirs = sealing_key(terms, birch, public_of(ash), own="birch", **ends)
    ours = sealing_key(terms, ash, public_of(birch), own="ash", **ends)
    assert ours == theirs
    return ours, seal(terms, ours, content, "ash", "birch", os.urandom)


def test_what_is_sealed_opens_at_the_receiver_and_has_the_stated_size():
    terms = session(3)
    key, sealed = sealed_between(terms, content=b"1" * 64)
    assert open_sealed(terms, key, sealed, "ash", "birch") == b"1" * 64
    assert len(sealed) == 2 * SEALED_BYTES


@pytest.mark.parametrize(
    ("terms", "sender", "receiver"),
    [(session(3, attempt=2), "ash", "birch"), (session(3), "birch", "ash"), (session(3), "ash", "cedar")],
    ids=["session", "direction", "receiver"],
)
def test_shares_do_not_open_elsewhere_even_under_the_same_key(terms, sender, receiver):
    key, sealed = sealed_between(session(3))
    with pytest.raises(ShareError, match=f"from {sender} to {receiver} were changed"):
        open_sealed(terms, key, sealed, sender, receiver)


def test_each_direction_and_each_session_has_a_key_of_its_own():
    ash, birch = os.urandom(32), public_of(os.urandom(32))
    there = {"sender": "ash", "receiver": "birch", "own": "ash"}
    back = {"sender": "birch", "receiver": "ash", "own": "ash"}
    keys = {sealing_key(session(3, attempt=a), ash, birch, **ends) for a in (1, 2) for ends in (there, back)}
    assert len(keys) == 4
