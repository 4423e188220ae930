"""A rehearsal goes through everything a round goes through, with data that is nobody's."""

import numpy as np

from client.follow import Follower
from client.log import site_log_file
from client.rehearsal import Rehearsal
from protocol.codec import unpack
from protocol.messages import Refusal, Report
from protocol.records import reply_from_record
from tests.client.joined import NODES


def rehearse(federation, **changes):
    post, order = federation.post(), federation.run.rehearse(**changes)
    reply = federation.ask(federation.sealed(post, order), message_type=order.action)
    post.check(NODES["north"], reply, order)
    return reply_from_record(reply)


def test_it_trains_on_synthetic_data_and_its_update_has_the_form_of_a_real_one(federation):
    root = federation.sites["north"]
    for name in ("captions.jsonl", "vqa.jsonl"):
        (root / name).write_text("not even JSON")
    report, arrays = rehearse(federation)
    assert isinstance(report, Report)
    assert report.site == "north"
    update = unpack(arrays, federation.run.schema)
    assert all(np.isfinite(tensor).all() for tensor in update.values())
    assert any(np.any(tensor) for tensor in update.values())


def test_nothing_of_it_is_kept_but_its_lines_in_the_log(federation):
    root = federation.sites["north"]
    before = {path.relative_to(root) for path in root.rglob("*")}
    rehearse(federation)
    after = {path.relative_to(root).as_posix() for path in root.rglob("*")} - {path.as_posix() for path in before}
    assert after <= {"state", "state/log.jsonl", "state/log.lock", "state/site.log"}
    kinds = [(line["kind"], line.get("stage")) for line in site_log_file(root).entries()]
    assert kinds == [("order", "train.rehearse"), ("schema", None), ("reply", "train.rehearse")]


def test_limits_hold_for_it_but_masks_and_privacy_are_not_asked_of_synthetic_data(federation):
    federation.limit(secure_aggregation="required", privacy="required", min_records=10**6)
    assert isinstance(rehearse(federation)[0], Report)
    federation.limit(max_batch=1)
    refusal, _ = rehearse(federation, round=2)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "policy_batch"


def test_the_engineer_sees_what_came_and_what_left(federation):
    root, said = federation.sites["north"], []
    seen = Rehearsal(Follower(root, "localhost:9092", root / "state" / "supernode.log", said.append), "north", 60.0)
    assert not seen.over()
    assert seen.verdict == "stopped before an order to rehearse was answered"
    rehearse(federation)
    seen.over()
    assert seen.passed
    assert said[0] == "asked: train.rehearse, round 1 of trial"
    assert said[1].startswith("left: 0.")
    assert said[1].endswith(" MB of weights, 5 metrics; receipt in line 3 of the log")
    assert "trained on synthetic data alone" in seen.verdict


def test_a_refusal_is_told_in_the_site_s_own_words(federation):
    federation.limit(max_batch=1)
    root = federation.sites["north"]
    seen = Rehearsal(Follower(root, "localhost:9092", root / "state" / "supernode.log"), "north", 60.0)
    rehearse(federation)
    seen.over()
    assert not seen.passed
    assert seen.verdict.startswith("refused (policy_batch): the order's batch is ")


def test_without_an_order_in_time_the_operators_command_is_named(tmp_path):
    seen = Rehearsal(Follower(tmp_path, "localhost:9092", tmp_path / "supernode.log"), "north", 0.0)
    assert seen.over()
    assert not seen.passed
    assert "no order to rehearse came within 0 s" in seen.verdict
    assert "mumc-server rehearse DIR north" in seen.verdict
