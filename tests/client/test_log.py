"""What `log verify` and `log show` say at both ends, and every way to break a log that they must find."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from client.cli import main as site_main
from client.joining import check_answer, leave, prepare
from client.keys import SiteKeys
from client.log import receipt, site_log_file
from client.log_check import check_site_log, miscounts
from protocol.enrolment import Join
from protocol.errors import LogError, SigningError
from protocol.hashchain import Head
from protocol.logcheck import head_text, parse_head
from protocol.messages import Refusal, Report
from protocol.papers import read_paper
from protocol.records import to_record
from server.cli import main as server_main
from server.joining import admit, publish, revoke
from server.log import read_heads, server_log, write_heads
from server.log_check import check_server_log
from tests.client.joined import Federation

LATER = Head(count=40, hash="a" * 64)


@pytest.fixture(scope="module")
def played(tmp_path_factory, two_joined, server):
    """Two rounds at north and fine-tuning, one refusal at south, and an order that nobody signed."""
    found = Federation.open(Path(shutil.copytree(two_joined, tmp_path_factory.mktemp("played") / "two")), server)
    found.exchange(server.pretrain(1))
    found.limit("south", max_steps=1)
    found.exchange(server.pretrain(1), "south")
    found.limit(metrics=["total", "accuracy*", "tested*"])
    found.exchange(server.pretrain(2))
    found.exchange(server.finetune())
    found.ask(to_record(server.pretrain(3), server.base))
    return found


@pytest.fixture
def federation(played, tmp_path):
    """A copy that a test may spoil."""
    return Federation.open(Path(shutil.copytree(played.home.root.parent, tmp_path / "copy")), played.run)


@pytest.fixture
def call(monkeypatch, capsys):
    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return run


def edit(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_a_whole_log_is_summed_up(played, call):
    code, out, _ = call(site_main, "log", "verify", played.sites["north"])
    entries = site_log_file(played.sites["north"]).entries()
    weights = sum(flat.nbytes for flat in played.run.base.values())
    words = sum(entry.get("message_bytes", 0) for entry in entries)
    assert code == 0
    assert f"whole: {len(entries)} lines" in out
    assert "3 (runs: 1, rounds: 3); refused: 0, turned away: 1, without a reply: 0" in out
    assert f"{2 * weights:,} bytes of weights in 2 updates" in out
    assert f"{words:,} bytes of words and numbers in 4 replies" in out
    assert f"head       {head_text(site_log_file(played.sites['north']).head())}\n" in out
    told = {entry["nonce"]: entry["server"] for entry in entries if entry["kind"] == "order"}
    assert f"server's   {head_text(Head(**list(told.values())[-1]))}, as its last order told\n" in out
    held = next(line for line in out.splitlines() if line.startswith("held back"))
    assert "itm" in held
    assert " accuracy" not in held


def test_the_same_is_there_for_programs(played, call):
    code, out, _ = call(site_main, "log", "verify", played.sites["south"], "--json")
    found = json.loads(out)
    assert (code, found["whole"], found["breaks"], found["refusals"], found["updates"]) == (0, True, [], 1, 0)
    code, out, _ = call(server_main, "log", "verify", played.home.root, "--json")
    found = json.loads(out)
    assert (code, found["whole"], found["orders"], found["unanswered"]) == (0, True, 4, 0)
    assert {name: (s["asked"], s["accepted"], s["refused"]) for name, s in found["sites"].items()} == {
        "north": (3, 3, 0),
        "south": (1, 0, 1),
    }


def test_each_end_s_head_is_found_in_the_other_end_s_log(played, call):
    heads = check_server_log(played.home).sites
    code, _, _ = call(site_main, "log", "verify", played.sites["north"], "--head", heads["north"].head)
    assert code == 0
    told = check_site_log(played.sites["north"]).server
    code, _, _ = call(server_main, "log", "verify", played.home.root, "--head", told)
    assert code == 0
    code, out, _ = call(server_main, "log", "verify", played.home.root, "--head", heads["north"].head)
    assert code == 1
    assert "the chain was written anew" in out


def test_a_line_each_is_shown(played, call):
    code, out, _ = call(site_main, "log", "show", played.sites["north"])
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 8)
    assert "trial round 1.1 train.pretrain  order, 2 steps" in lines[0]
    assert "tensors have the form" in lines[1]
    assert "visual_encoder[" in lines[2]
    assert "norm " in lines[2]
    assert "accuracy " in lines[6]
    assert "bytes of weights" not in lines[6]
    assert "turned away train.pretrain: bad_seal: the order is not signed, and this site" in lines[7]
    _, out, _ = call(site_main, "log", "show", played.sites["north"], "--last", "1", "--json")
    assert json.loads(out)["code"] == "bad_seal"
    _, out, _ = call(server_main, "log", "show", played.home.root)
    assert "north trial round 1.1 train.pretrain  accepted: " in out
    assert "the site refused: policy_steps: the order's steps is 2, and this site allows at most 1" in out


SPOILED = {
    "edited": lambda lines: [lines[0].replace(b'"steps":2', b'"steps":3'), *lines[1:]],
    "left out": lambda lines: [lines[0], *lines[2:]],
    "moved": lambda lines: [lines[1], lines[0], *lines[2:]],
    "not JSON": lambda lines: [lines[0], b"nothing\n", *lines[2:]],
    "another signature": lambda lines: [*lines[:2], lines[2].replace(b'"signature":"', b'"signature":"00'), *lines[3:]],
}
WHERE = {"edited": 1, "left out": 2, "moved": 1, "not JSON": 2, "another signature": 3}


@pytest.mark.parametrize("how", sorted(SPOILED))
def test_a_break_is_named_by_line_cause_and_remedy(federation, call, how):
    path = site_log_file(federation.sites["north"]).path
    path.write_bytes(b"".join(SPOILED[how](path.read_bytes().splitlines(keepends=True))))
    code, out, _ = call(site_main, "log", "verify", federation.sites["north"])
    assert code == 1
    assert f"is broken at line {WHERE[how]}: " in out
    assert "remedy: put the newest unchanged copy of the file back" in out
    _, out, _ = call(site_main, "log", "verify", federation.sites["north"], "--json")
    found = json.loads(out)
    assert (found["whole"], found["breaks"][0]["line"]) == (False, WHERE[how])


def test_a_log_that_was_taken_back_is_found_by_what_the_server_remembers(federation, call):
    path, known = site_log_file(federation.sites["north"]).path, check_server_log(federation.home).sites["north"].head
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert call(site_main, "log", "verify", federation.sites["north"])[0] == 0
    code, out, _ = call(site_main, "log", "verify", federation.sites["north"], "--head", known)
    assert code == 1
    assert "broken at line 4: the chain has 3 entries and had 7 before" in out


def test_an_edited_line_of_the_server_is_found(federation, call):
    edit(server_log(federation.home).path, b'"what":"refusal"', b'"what":"accepted"')
    code, out, _ = call(server_main, "log", "verify", federation.home.root)
    assert code == 1
    assert "is broken at line 4: entry 3 was changed after it was written" in out
    assert "every site refuses a server whose log has become shorter" in out


def test_heads_that_were_taken_back_are_found_by_the_server_s_log(federation, call):
    heads = read_heads(federation.home)
    write_heads(
        federation.home, heads | {"north": dataclasses.replace(heads["north"], log=Head(count=3, hash="b" * 64))}
    )
    code, out, _ = call(server_main, "log", "verify", federation.home.root)
    assert code == 1
    assert "the log of north had 7 lines, and heads.json remembers 3" in out
    assert "remedy: put the newest state/heads.json back" in out


@pytest.mark.parametrize("text", ["", "[1]", '{"north": {"log": {"count": 1}, "ledger": 3}}'])
def test_heads_that_are_damaged_are_named_with_the_remedy(federation, call, text):
    (federation.home.state / "heads.json").write_text(text)
    code, _, err = call(server_main, "log", "verify", federation.home.root)
    assert code == 2
    assert "heads.json is not what the server remembers of its sites" in err
    assert "put its newest copy back" in err


def test_heads_that_a_crash_kept_before_the_log_s_line_are_no_break(federation):
    heads = read_heads(federation.home)
    write_heads(federation.home, heads | {"north": dataclasses.replace(heads["north"], log=LATER)})
    assert check_server_log(federation.home).whole


WRONG = {
    "arrays' bytes": (lambda e: e["arrays"]["float32"].update(bytes=4), "an array's bytes are not those of its shape"),
    "bytes": (lambda e: e.update(bytes=4), "the arrays come to other bytes than the 4 of the reply"),
    "no tensors": (lambda e: e.update(tensors={}), "arrays left, and no tensors are named"),
    "another form": (lambda e: e.update(schema="c" * 64), "no line before it names the tensors"),
    "values": (lambda e: e["tensors"]["temp"].update(values=2), "the tensors come to "),
    "norm": (lambda e: e["tensors"]["vision_proj"].update(norm=1e6), "the norms of the parts come to "),
    "another exchange": (lambda e: e.update(nonce="0" * 32), "the reply answers no order before it"),
    "another round": (lambda e: e.update(round=2), "the reply has another round than its order"),
}


@pytest.mark.parametrize("how", sorted(WRONG))
def test_a_receipt_that_does_not_add_up_is_found(played, how):
    spoil, says = WRONG[how]
    entries = site_log_file(played.sites["north"]).entries()
    assert not list(miscounts(entries))
    spoil(entries[2])
    (entry, cause), *_ = miscounts(entries)
    assert entry is entries[2]
    assert cause.startswith(says)


def test_an_order_that_is_answered_twice_is_found(played):
    entries = site_log_file(played.sites["north"]).entries()
    ((_, cause),) = miscounts([*entries[:3], entries[2]])
    assert cause == "the reply answers no order before it, or one that has its reply"


def test_under_masks_a_receipt_names_the_tensors_and_no_norm(played):
    entries = site_log_file(played.sites["north"]).entries()
    size = sum(flat.size for flat in played.run.base.values())
    order = played.run.pretrain()
    report = Report(
        run_id=order.run_id, round=1, attempt=1, site="north", examples=1, metrics={}, base_digest=order.base_digest
    )
    found = receipt(report, {"uint32": np.zeros(size, np.uint32)}, played.run.schema)
    assert (found["norm"], {group["norm"] for group in found["tensors"].values()}) == (None, {None})
    assert not list(miscounts([*entries[:2], entries[2] | found]))


def test_a_receipt_of_a_refusal_has_its_words():
    found = receipt(Refusal(code="policy_steps", text="at most 1"), {})
    assert (found["answer"], found["code"], found["text"], found["bytes"]) == (
        "refusal",
        "policy_steps",
        "at most 1",
        0,
    )


def test_a_log_that_is_not_there_and_a_head_that_is_none_are_named(tmp_path, federation):
    (site_log_file(federation.sites["north"]).path).unlink()
    with pytest.raises(LogError, match=r"there is no log .*; give the folder of a site"):
        check_site_log(federation.sites["north"])
    with pytest.raises(LogError, match="is no head of a log; give COUNT:HASH"):
        parse_head("12")
    assert parse_head(f" {head_text(LATER)}\n") == LATER


def test_after_leaving_the_log_is_verified_by_the_key_in_the_note(federation):
    root = federation.sites["north"]
    file, keys = leave(root, "")
    keys.forget()
    (kept,) = (root / "state").glob("log-until-*.jsonl")
    with pytest.raises(SigningError) as refused:
        check_site_log(root)
    assert str(refused.value) == (
        f"this site has left its federation, and its keys are destroyed; verify {kept} with --key, the signing key in "
        f"{root}/leave-NAME.json"
    )
    assert check_site_log(kept, key=json.loads(file.read_text())["signing_key"]).lines == 8


def test_a_site_that_was_revoked_comes_back_with_new_keys_and_a_new_log(federation):
    root = federation.sites["north"]
    leave(root, "")[1].forget()
    revoke(federation.home, "north", "keys were lost")
    assert "north" not in read_heads(federation.home)
    _, enrolment = prepare(root, "", 10)
    publish(federation.home, admit(federation.home, enrolment))
    check_answer(root, read_paper(Join, federation.home.join_file("north")), replace=False).take_in()
    federation.exchange(federation.run.pretrain(1))
    assert [line["kind"] for line in site_log_file(root).verify(SiteKeys(root).public[1])] == [
        "order",
        "schema",
        "reply",
    ]
    found = check_server_log(federation.home)
    assert found.whole
    assert found.sites["north"].head.startswith("3:")
