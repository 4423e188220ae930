import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ChainError
from protocol.hashchain import Head, append, check_contains, from_line, head_of, to_line, verify_chain
from protocol.signing import new_key, public_hex, sign

KEY = new_key()
PUBLIC = public_hex(KEY)
CONTEXT = "test-chain"
UNTIMED = settings(deadline=None, max_examples=60)
bodies = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(), max_size=2), max_size=6)


def chain(bodies, key=KEY):
    head, entries = Head(), []
    for body in bodies:
        entries.append(append(head, body, key, CONTEXT))
        head = head_of(entries[-1])
    return entries


FIVE = chain([{"n": number} for number in range(5)])


def resigned(entry, **changes):
    """The entry after an edit by someone who can compute hashes but has another key."""
    return append(Head(entry["index"], entry["previous"]), {"n": 7, **changes}, new_key(), CONTEXT)


@UNTIMED
@given(bodies, st.integers(0, 6))
def test_a_chain_is_verified_whole_or_onwards_from_any_head(bodies, split):
    entries = chain(bodies)
    split = min(split, len(entries))
    start = verify_chain(entries[:split], PUBLIC, CONTEXT)
    assert verify_chain(entries[split:], PUBLIC, CONTEXT, start) == verify_chain(entries, PUBLIC, CONTEXT)
    assert verify_chain(entries, PUBLIC, CONTEXT).count == len(entries)
    check_contains(entries, start)


@UNTIMED
@given(st.data())
def test_any_change_of_any_entry_is_found_and_named(data):
    number = data.draw(st.integers(0, 4))
    field = data.draw(st.sampled_from(sorted(FIVE[0])))
    value = data.draw(st.integers() | st.text(max_size=3))
    entries = [dict(entry) for entry in FIVE]
    if json.dumps(entries[number][field]) == json.dumps(value):
        return
    entries[number][field] = value
    with pytest.raises(ChainError, match=f"entry {number} "):
        verify_chain(entries, PUBLIC, CONTEXT)


@UNTIMED
@given(st.permutations(range(5)))
def test_any_other_order_is_found(order):
    if order == sorted(order):
        return
    with pytest.raises(ChainError, match="missing or out of order"):
        verify_chain([FIVE[number] for number in order], PUBLIC, CONTEXT)


@pytest.mark.parametrize("gone", range(4))
def test_a_missing_entry_is_found(gone):
    with pytest.raises(ChainError, match=f"entry {gone} .*missing"):
        verify_chain(FIVE[:gone] + FIVE[gone + 1 :], PUBLIC, CONTEXT)


def test_a_cut_end_is_found_by_a_head_that_was_kept():
    head = verify_chain(FIVE, PUBLIC, CONTEXT)
    verify_chain(FIVE[:4], PUBLIC, CONTEXT)
    with pytest.raises(ChainError, match="has 4 entries and had 5"):
        check_contains(FIVE[:4], head)


def test_a_chain_that_was_written_anew_is_found_by_a_head_that_was_kept():
    anew = chain([{"n": 9}] * 6)
    with pytest.raises(ChainError, match=r"entry 4 .*written anew"):
        check_contains(anew, head_of(FIVE[4]))


def test_a_rehashed_entry_of_another_key_is_found():
    with pytest.raises(ChainError, match="entry 2 is not signed by the key of this chain"):
        verify_chain([*FIVE[:2], resigned(FIVE[2])], PUBLIC, CONTEXT)


def test_a_signature_from_another_kind_of_chain_is_refused():
    foreign = append(Head(), {"n": 0}, KEY, "another-chain")
    with pytest.raises(ChainError, match="entry 0"):
        verify_chain([foreign], PUBLIC, CONTEXT)
    forged = {**FIVE[0], "signature": sign(KEY, "another-chain", {"n": 0, "index": 0, "previous": "0" * 64})}
    with pytest.raises(ChainError, match="not signed"):
        verify_chain([forged], PUBLIC, CONTEXT)


@pytest.mark.parametrize("name", ["index", "previous", "hash", "signature"])
def test_a_body_cannot_pass_for_the_chain_itself(name):
    with pytest.raises(ChainError, match=name):
        append(Head(), {name: 1}, KEY, CONTEXT)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"n"', b' "n"'),
        lambda line: line[:-1],
        lambda line: line[:-10] + b"\n",
        lambda line: b'{"n":3,' + line[1:],
        lambda line: b"[]\n",
        lambda line: b"\xff" + line,
        lambda line: b"[" * 100_000 + b"\n",
    ],
    ids=["a space", "no end", "cut", "a key twice", "no object", "no text", "deep"],
)
def test_a_line_is_read_only_as_it_was_written(change):
    line = to_line(FIVE[3])
    assert from_line(line, 3) == FIVE[3]
    with pytest.raises(ChainError, match="line 3"):
        from_line(change(line), 3)
