"""The engineer's terminal: the connection's changes once each, every order and reply in a few words."""

from dataclasses import replace

from client.follow import Follower
from client.log_check import check_site_log


def test_the_connection_is_told_when_it_changes_and_not_from_an_earlier_start(tmp_path):
    log, said = tmp_path / "supernode.log", []
    log.write_text("SuperNode ID: 1\n")
    follower = Follower(tmp_path, "hub:9092", log, said.append)

    def write(text):
        with log.open("a") as file:
            file.write(text)
        assert follower.step() == []

    follower.step()
    assert said == []
    write("WARNING: Connection attempt failed, retrying in 1 s\n" * 3)
    write("SuperNode ID: 7\nsomething else\n")
    write("WARNING: Connection attempt failed\n")
    write("Connection successful after 3 s\n")
    away = f"hub:9092 does not answer; trying again (mumc-site check {tmp_path} says what is wrong)"
    assert said == [away, "connected to hub:9092", away, "connected to hub:9092"]


def test_what_is_asked_and_what_leaves_is_told_and_a_refusal_with_its_reason(federation):
    root, said = federation.sites["north"], []
    federation.exchange(federation.run.pretrain())
    follower = Follower(root, "hub:9092", root / "none.log", said.append)
    assert follower.step() == []
    federation.exchange(federation.run.finetune())
    follower.step()
    federation.limit(max_steps=1)
    federation.exchange(federation.run.pretrain(round=4))
    post, order = federation.post(), federation.run.pretrain(round=5)
    record = federation.sealed(post, order)
    federation.ask(record)
    federation.ask(record)
    entries = follower.step()
    assert [entry["kind"] for entry in entries] == ["order", "reply", "order", "reply", "turned_away"]
    assert said[0] == "asked: train.finetune, round 3 of trial"
    assert said[1].startswith("left: ")
    assert said[1].endswith("; receipt in line 5 of the log")
    assert "MB" not in said[1]
    assert said[3].startswith("refused: train.pretrain, round 4 (policy_steps): the order's steps is 2, and this site")
    assert said[6].startswith("turned away: train.pretrain (bad_seal): ")


def test_a_log_that_cannot_be_read_is_told_with_the_remedy(federation):
    root, said = federation.sites["north"], []
    federation.exchange(federation.run.pretrain())
    follower = Follower(root, "hub:9092", root / "none.log", said.append)
    with (root / "state" / "log.jsonl").open("a") as file:
        file.write("no line of ours\n")
    assert follower.step() == []
    assert said[0].endswith(f"; see mumc-site log verify {root}")


def test_why_the_last_update_was_not_merged_is_told_and_changes_nothing_of_what_is_sent_again(federation):
    root, said = federation.sites["north"], []
    follower = Follower(root, "hub:9092", root / "none.log", said.append)
    first = federation.exchange(federation.run.pretrain())
    why = "not in round 1, attempt 1: norm_too_large: it is\n12 times as long"
    again = federation.exchange(replace(federation.run.pretrain(), attempt=2, remark=why))
    follower.step()
    last = "not in round 1, attempt 1: norm_too_large: it is 12 times as long"
    assert said[2] == f"asked: train.pretrain, round 1 of trial (the server says of this site's last update: {last})"
    assert first["arrays"]["float32"].data == again["arrays"]["float32"].data
    assert check_site_log(root).whole
