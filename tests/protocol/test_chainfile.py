"""A log that only grows: what was written cannot be changed, cut off or taken back unseen."""

import multiprocessing

import pytest

from protocol.chainfile import ChainFile, contains
from protocol.errors import ChainError
from protocol.hashchain import Head
from protocol.signing import new_key, public_hex, sign

KEY = new_key()
PUBLIC = public_hex(KEY)


@pytest.fixture
def log(tmp_path):
    found = ChainFile(tmp_path / "state" / "log.jsonl", "a-log")
    for number in range(4):
        found.append(KEY, {"kind": "order", "number": number})
    return found


def test_entries_come_back_in_order(log):
    assert [entry["number"] for entry in log.verify(PUBLIC)] == [0, 1, 2, 3]
    assert log.head().count == 4


def test_an_edited_line_is_found(log):
    log.path.write_bytes(log.path.read_bytes().replace(b'"number":1', b'"number":7'))
    with pytest.raises(ChainError, match="entry 1 was changed") as raised:
        log.verify(PUBLIC)
    assert raised.value.index == 1


def test_a_deleted_line_is_found(log):
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(ChainError, match="entry 1 does not follow"):
        log.verify(PUBLIC)


def test_an_older_copy_is_found_by_who_knows_a_later_head(log):
    anchor, older = log.head(), log.path.read_bytes().splitlines(keepends=True)[:2]
    log.path.write_bytes(b"".join(older))
    log.verify(PUBLIC)
    with pytest.raises(ChainError, match="an older copy was put in its place"):
        log.verify(PUBLIC, anchor)
    assert not contains(log.entries(), anchor)


def test_another_key_can_add_nothing(log):
    with pytest.raises(ChainError, match="not signed by the key of this chain"):
        log.append(new_key(), {"kind": "order"})
    assert log.head().count == 4


def test_a_line_that_a_crash_left_half_written_was_never_said_and_goes(log):
    with log.path.open("ab") as file:
        file.write(b'{"kind":"order","numb')
    log.append(KEY, {"kind": "order", "number": 4})
    assert [entry["number"] for entry in log.verify(PUBLIC)] == [0, 1, 2, 3, 4]


def test_a_line_that_a_crash_left_half_written_hides_none_before_it(log):
    with log.path.open("ab") as file:
        file.write(b'{"kind":"order","numb')
    assert [entry["number"] for entry in log.verify(PUBLIC)] == [0, 1, 2, 3]
    assert log.head().count == 4


def test_a_log_goes_on_under_the_key_that_it_was_handed_to(log):
    later, last = new_key(), new_key()
    anchor = log.head()
    for old, new in ((KEY, later), (later, last)):
        log.hand_over(old, new)
        log.hand_over(old, new)
        log.verify(public_hex(new))
        log.append(new, {"kind": "order", "number": 9})
    kinds = [entry["kind"] for entry in log.verify(public_hex(last), anchor, log.head())]
    assert kinds == ["order"] * 4 + ["key", "order"] * 2
    with pytest.raises(ChainError, match="entry 6 hands the log over to another key"):
        log.verify(PUBLIC)
    with pytest.raises(ChainError, match="not signed by the key of this chain"):
        log.append(KEY, {"kind": "order"})


def test_a_log_is_handed_to_no_key_that_did_not_agree(log):
    head = log.head()
    change = {"from": PUBLIC, "to": public_hex(new_key()), "lines": head.count, "last": head.hash}
    log.append(KEY, {"kind": "key", **change, "agreed": sign(KEY, "a-log-key", change)})
    with pytest.raises(ChainError, match="entry 4 hands the log over to a key that did not agree"):
        log.verify(change["to"])


def test_a_new_log_is_handed_over_without_a_line(log, tmp_path):
    empty = ChainFile(tmp_path / "empty.jsonl", "a-log")
    empty.hand_over(KEY, new_key())
    assert not empty.path.exists()


def test_a_new_log_is_empty(tmp_path):
    log = ChainFile(tmp_path / "log.jsonl", "a-log")
    assert (log.entries(), log.head()) == ([], Head())


def _add(log, key_bytes):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(key_bytes)
    for _ in range(10):
        log.append(key, {"kind": "order", "number": 9})


def test_two_processes_lose_no_line(log):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_add, args=(log, KEY.private_bytes_raw())) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert len(log.verify(PUBLIC)) == 24
