"""Both ends of sealed messages, with real keys, folders and logs: what a joined site follows, what the server takes."""

import dataclasses

import numpy as np
import pytest
from flwr.app import RecordDict

from client.joining import check_answer, rotate
from client.keys import SiteKeys
from client.log import site_log_file
from client.seal import check_new
from protocol.enrolment import Join
from protocol.envelope import payload_digest, seal
from protocol.errors import ChainError, EnvelopeError, IdentityError, ProtocolError
from protocol.messages import Refusal, Report
from protocol.papers import read_paper
from protocol.records import reply_from_record, seal_from_record, to_record
from protocol.signing import new_key, public_hex
from server.joining import admit, publish, revoke
from server.journal import read_journal
from server.log import read_heads, server_log
from server.log_check import check_server_log
from tests.client.joined import NODES
from tests.federation import take_in


def test_an_order_of_the_server_is_followed_and_the_reply_is_taken(federation):
    post = federation.post()
    reply = federation.ask(federation.sealed(post, federation.run.pretrain()))
    post.check(NODES["north"], reply, federation.run.pretrain())
    report, arrays = reply_from_record(reply)
    assert isinstance(report, Report)
    assert arrays.keys() == federation.run.base.keys()
    came, form, left = site_log_file(federation.sites["north"]).verify(SiteKeys(federation.sites["north"]).public[1])
    assert (came["kind"], left["kind"], left["bytes"]) == ("order", "reply", sum(a.nbytes for a in arrays.values()))
    schema = federation.run.schema
    assert form["tensors"] == [[name, list(shape), dtype] for name, shape, dtype in schema]
    assert form["digest"] == left["schema"] == schema.digest
    named, norms = federation.run.named(arrays), {}
    for name, tensor in named.items():
        norms.setdefault(name.split(".")[0], []).append(np.linalg.norm(tensor.astype(float)))
    assert {part: group["norm"] for part, group in left["tensors"].items()} == pytest.approx(
        {part: np.linalg.norm(each) for part, each in norms.items()}
    )
    assert {part: group["tensors"] for part, group in left["tensors"].items()} == {p: len(n) for p, n in norms.items()}
    assert sum(group["values"] for group in left["tensors"].values()) == sum(flat.size for flat in arrays.values())
    assert left["norm"] == pytest.approx(np.sqrt(sum(float((a.astype(float) ** 2).sum()) for a in arrays.values())))
    assert (left["examples"], left["metrics"], left["withheld"]) == (report.examples, report.metrics, [])
    assert left["payload"] == payload_digest(report, arrays)


def test_the_form_of_what_leaves_is_written_once(federation):
    post, root = federation.post(), federation.sites["north"]
    for round in (1, 2):
        reply = federation.ask(federation.sealed(post, federation.run.pretrain(round)))
        post.check(NODES["north"], reply, federation.run.pretrain(round))
    kinds = [line["kind"] for line in site_log_file(root).entries()]
    assert kinds == ["order", "schema", "reply", "order", "reply"]


def test_the_server_s_log_names_what_it_took_and_from_whom(federation):
    post = federation.post()
    reply = federation.ask(federation.sealed(post, federation.run.pretrain()))
    post.check(NODES["north"], reply, federation.run.pretrain())
    asked, came = server_log(federation.home).entries()
    assert (asked["kind"], came["kind"], came["what"], came["reason"]) == ("order", "reply", "accepted", "")
    receipt = site_log_file(federation.sites["north"]).entries()[-1]
    assert (came["payload"], came["nonce"]) == (receipt["payload"], asked["nonce"])
    assert came["bytes"] > receipt["bytes"] + receipt["message_bytes"]
    assert came["heads"]["log"] == {"count": 3, "hash": receipt["hash"]}


@pytest.mark.parametrize("how", ["unsigned", "another key", "swapped weights", "another site", "other steps"])
def test_what_the_server_did_not_sign_for_this_site_is_not_followed(federation, how):
    post, order = federation.post(), federation.run.pretrain()
    found = seal_from_record(federation.sealed(post, order))
    base = federation.run.base
    if how == "unsigned":
        record = to_record(order, base)
    elif how == "another key":
        record = to_record(order, base, seal(found.statement, new_key()))
    elif how == "swapped weights":
        record = to_record(order, {name: flat + np.float32(1) for name, flat in base.items()}, found)
    elif how == "another site":
        record = federation.sealed(post, order, site="south")
    else:
        record = to_record(dataclasses.replace(order, steps=order.steps + 1), base, found)
    answer, arrays = reply_from_record(federation.ask(record))
    assert (answer.code, arrays) == ("bad_seal", {})
    (line,) = site_log_file(federation.sites["north"]).entries()
    assert (line["kind"], line["code"]) == ("turned_away", "bad_seal")
    assert not list((federation.sites["north"] / "state").glob("runs/*/*"))


def test_a_replayed_order_and_one_for_an_earlier_round_are_refused(federation):
    post = federation.post()
    first = federation.sealed(post, federation.run.pretrain(1))
    assert isinstance(reply_from_record(federation.ask(first))[0], Report)
    assert reply_from_record(federation.ask(first))[0].code == "bad_seal"
    federation.ask(federation.sealed(post, federation.run.pretrain(2)))
    late = federation.sealed(post, federation.run.pretrain(1))
    assert reply_from_record(federation.ask(late))[0].code == "stale"


def test_a_model_is_evaluated_again_after_the_rounds_of_its_run(federation):
    for order in (federation.run.finetune(), federation.run.evaluate(), federation.run.evaluate()):
        reply = federation.exchange(order)
        assert reply_from_record(reply)[0].metrics["tested"] == 24


@pytest.mark.parametrize("how", ["unsigned", "swapped body", "earlier exchange", "site B as site A"])
def test_the_server_takes_no_reply_but_the_site_s_own_to_this_very_order(federation, how):
    post, order = federation.post(), federation.run.pretrain()
    reply = federation.ask(federation.sealed(post, order))
    report, arrays = reply_from_record(reply)
    found, node = seal_from_record(reply), NODES["north"]
    if how == "unsigned":
        reply = to_record(report, arrays)
    elif how == "swapped body":
        reply = to_record(report, {name: flat * np.float32(100) for name, flat in arrays.items()}, found)
    elif how == "earlier exchange":
        post.seal(order, node, payload_digest(order, federation.run.base))
    else:
        key = SiteKeys(federation.sites["south"]).signing()
        reply = to_record(report, arrays, seal(found.statement, key))
    with pytest.raises(EnvelopeError):
        post.check(node, reply, order)


@pytest.mark.parametrize("how", ["nothing", "its order", "an array without its bytes"])
def test_what_is_no_reply_is_a_line_of_the_server_s_log_too(federation, how):
    post = federation.post()
    sent = federation.sealed(post, federation.run.pretrain())
    record = {"nothing": RecordDict(), "its order": sent, "an array without its bytes": federation.ask(sent)}[how]
    if how == "an array without its bytes":
        record["arrays"]["float32"].data = record["arrays"]["float32"].data[4:]
    with pytest.raises(ProtocolError) as raised:
        post.check(NODES["north"], record, federation.run.pretrain())
    line = server_log(federation.home).entries()[-1]
    assert (line["kind"], line["what"], line["code"]) == ("reply", "refused", raised.value.code)


def test_a_node_that_is_no_enrolled_site_is_not_asked(federation):
    post = federation.post()
    assert post.enrolled([999, *NODES.values()]) == list(NODES.values())
    with pytest.raises(IdentityError, match="is no enrolled site"):
        post.seal(federation.run.pretrain(), 999, "d" * 64)


def test_a_whole_run_is_sealed_and_a_revoked_site_is_not_asked(federation, tmp_path):
    result = federation.play(tmp_path / "both", "federation.sites=2", "federation.min_sites=2")
    assert [record.refused for record in read_journal(result.journal)] == [{}, {}]
    assert set(result.vqa) == set(NODES)
    server_log(federation.home).verify(public_hex(federation.home.signer()))
    revoke(federation.home, "south", "left")
    result = federation.play(tmp_path / "one", "federation.sites=1", "federation.min_sites=1")
    assert set(result.vqa) == {"north"}


def test_a_site_whose_log_was_taken_back_follows_no_order_and_says_so(federation):
    post, root = federation.post(), federation.sites["north"]
    order = federation.run.pretrain(1)
    post.check(NODES["north"], federation.ask(federation.sealed(post, order)), order)
    (root / "state" / "log.jsonl").unlink()
    reply = federation.ask(federation.sealed(federation.post(), federation.run.pretrain(2)))
    assert reply_from_record(reply)[0].code == "bad_chain"


def test_a_server_whose_log_was_taken_back_is_followed_no_more(federation):
    post, log = federation.post(), server_log(federation.home).path
    federation.ask(federation.sealed(post, federation.run.pretrain(1)))
    post.seal(federation.run.pretrain(2), NODES["south"], "d" * 64)
    federation.ask(federation.sealed(post, federation.run.pretrain(2)))
    log.unlink()
    reply = federation.ask(federation.sealed(federation.post(), federation.run.pretrain(2)))
    assert reply_from_record(reply)[0].code == "bad_seal"


def test_new_keys_go_on_with_the_log_and_the_server_takes_it(federation):
    root = federation.sites["north"]
    post = federation.post()
    order = federation.run.pretrain(1)
    post.check(NODES["north"], federation.ask(federation.sealed(post, order)), order)
    _, enrolment = rotate(root, 0)
    publish(federation.home, admit(federation.home, enrolment))
    take_in(federation.home, root)
    post = federation.post()
    reply = federation.ask(federation.sealed(post, federation.run.pretrain(2)))
    post.check(NODES["north"], reply, federation.run.pretrain(2))
    kinds = [line["kind"] for line in site_log_file(root).verify(SiteKeys(root).public[1])]
    assert kinds == ["order", "schema", "reply", "key", "order", "reply"]


def test_a_log_that_was_tampered_with_is_vouched_for_by_no_new_key(federation):
    root = federation.sites["north"]
    federation.ask(federation.sealed(federation.post(), federation.run.pretrain(1)))
    log = site_log_file(root).path
    log.write_bytes(log.read_bytes().replace(b'"examples":', b'"examples":1'))
    _, enrolment = rotate(root, 0)
    publish(federation.home, admit(federation.home, enrolment))
    answer = check_answer(root, read_paper(Join, federation.home.join_file("north")), replace=False)
    with pytest.raises(ChainError, match="was changed after it was written"):
        answer.take_in()


def test_the_log_of_another_federation_s_server_is_not_held_against_this_one(federation):
    post = federation.post()
    federation.ask(federation.sealed(post, federation.run.pretrain(2)))
    (earlier,) = [line for line in site_log_file(federation.sites["north"]).entries() if line["kind"] == "order"]
    said = seal_from_record(federation.sealed(post, federation.run.pretrain(1))).statement
    elsewhere = earlier | {"federation": "f" * 64, "server": {"count": 50, "hash": "0" * 64}}
    check_new(said, [elsewhere])
    with pytest.raises(EnvelopeError, match="had 50: an older copy"):
        check_new(said, [elsewhere | {"federation": said.federation}])


def test_the_server_finds_a_site_whose_log_has_grown_shorter(federation):
    post = federation.post()
    reply = federation.ask(federation.sealed(post, federation.run.pretrain(1)))
    post.check(NODES["north"], reply, federation.run.pretrain(1))
    ((key, asked),) = post._asked.items()
    post._asked[key] = dataclasses.replace(asked, seen=dataclasses.replace(asked.seen, count=99))
    with pytest.raises(ChainError, match="the log of north has 3 lines and had 99"):
        post.check(NODES["north"], reply, federation.run.pretrain(1))


def test_replies_of_two_runs_at_one_time_may_come_in_any_order(federation):
    one, two = federation.post(), federation.post()
    first = federation.ask(federation.sealed(one, federation.run.pretrain(1)))
    second = federation.ask(federation.sealed(two, federation.run.rehearse()), message_type="train.rehearse")
    two.check(NODES["north"], second, federation.run.rehearse())
    one.check(NODES["north"], first, federation.run.pretrain(1))
    told = seal_from_record(second).statement
    assert read_heads(federation.home)["north"].log == told.head
    assert check_server_log(federation.home).whole
    federation.exchange(federation.run.pretrain(2))


def test_a_refusal_by_the_site_s_limits_is_signed_and_names_them(federation):
    federation.limit(max_steps=1)
    post = federation.post()
    reply = federation.ask(federation.sealed(post, federation.run.pretrain()))
    post.check(NODES["north"], reply, federation.run.pretrain())
    assert seal_from_record(reply) is not None
    assert reply_from_record(reply)[0] == Refusal(
        code="policy_steps", text="the order's steps is 2, and this site allows at most 1 (policy.runs.max_steps)"
    )


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"secure_aggregation": "required"}, "policy_secure_aggregation"),
        ({"min_records": 1000}, "policy_records"),
        ({"weights": ["visual_encoder."]}, "policy_weights"),
        ({"privacy": "required"}, "policy_privacy"),
    ],
)
def test_every_limit_of_a_site_is_kept(federation, limits, code):
    federation.limit(**limits)
    answer, arrays = reply_from_record(federation.ask(federation.sealed(federation.post(), federation.run.pretrain())))
    assert (answer.code, arrays) == (code, {})


def test_other_code_than_the_installed_is_refused(federation):
    record = federation.sealed(federation.post(), federation.run.pretrain())
    assert reply_from_record(federation.ask(record, code="d" * 64))[0].code == "policy_code"


def test_metrics_that_stay_are_left_out_and_noted(federation):
    federation.limit(metrics=["total"])
    report, _ = reply_from_record(federation.ask(federation.sealed(federation.post(), federation.run.pretrain())))
    left = site_log_file(federation.sites["north"]).entries()[-1]
    assert set(report.metrics) == {"total"}
    assert "itm" in left["withheld"]


def test_a_site_without_limits_follows_no_order(federation):
    (federation.sites["north"] / "site.yaml").write_text("name: north\ndevice: cpu\n")
    answer, _ = reply_from_record(federation.ask(federation.sealed(federation.post(), federation.run.pretrain())))
    assert answer.code == "no_policy"


def test_counts_below_the_site_s_smallest_stay(federation):
    federation.limit(smallest_count=1000)
    record = federation.sealed(federation.post(), federation.run.finetune())
    report, _ = reply_from_record(federation.ask(record, message_type="train.finetune"))
    assert not {name for name in report.metrics if name.startswith(("accuracy", "tested", "validation"))}
