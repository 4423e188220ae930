"""A site whose limits ask for a data card trains on no data that has none, and says so before the first order too."""

import json
from dataclasses import replace

import pytest

from client.config import RunLimits
from client.datacard.card import build
from client.datacard.write import write_card
from client.errors import GateError
from client.faults import refusal
from client.gate import CARD_REASONS, check_card
from configs.loader import ConfigurationError
from protocol.messages import STAGE_ACTIONS, Refusal, Report
from protocol.records import reply_from_record

REQUIRED = RunLimits(card="required")


def change(root):
    """Another row among the records; a blank line is one to the digest and none to the trainer."""
    with (root / "captions.jsonl").open("a") as file:
        file.write("\n")


def reason(root, limits=REQUIRED):
    with pytest.raises(GateError) as refused:
        check_card(limits, root)
    return refused.value


def test_without_a_card_and_with_one_of_other_data_nothing_is_trained(folder):
    assert str(reason(folder)) == CARD_REASONS["none"]
    write_card(folder, build(folder))
    check_card(REQUIRED, folder)
    change(folder)
    assert str(reason(folder)) == CARD_REASONS["stale"]
    write_card(folder, build(folder))
    check_card(REQUIRED, folder)


def test_a_card_of_an_earlier_fedmumc_is_to_be_made_again_in_words(folder):
    write_card(folder, build(folder))
    path = folder / "state" / "card" / "datacard.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"data": plain["data"][:64]}))
    assert str(reason(folder)) == CARD_REASONS["old"]


def test_an_image_that_is_exchanged_under_its_name_is_other_data(folder):
    write_card(folder, build(folder))
    one, other = sorted(folder.glob("images/*"))[:2]
    one.write_bytes(other.read_bytes())
    assert str(reason(folder)) == CARD_REASONS["stale"]


def test_where_a_card_is_optional_the_data_is_not_looked_at(tmp_path):
    check_card(RunLimits(), tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kind": "data-card"}', '{"kind": "data-card", "version": 1}'])
def test_a_broken_card_is_none_or_not_of_the_data(folder, content):
    (folder / "state" / "card").mkdir(parents=True)
    (folder / "state" / "card" / "datacard.json").write_text(content)
    assert reason(folder).code == "policy_card"


def test_the_reason_is_fixed_beforehand_and_told_to_the_server(folder):
    error = reason(folder)
    assert refusal(error) == Refusal(code="policy_card", text=CARD_REASONS["none"])
    assert str(folder) not in str(error)


def answer(federation, order):
    record = federation.sealed(federation.post(), order)
    return reply_from_record(federation.ask(record, message_type=order.action))[0]


@pytest.mark.parametrize("action", ["pretrain", "finetune"])
def test_no_order_that_trains_is_followed_without_a_card(federation, action):
    federation.limit(card="required")
    found = answer(federation, getattr(federation.run, action)())
    assert found == Refusal(code="policy_card", text=CARD_REASONS["none"])


@pytest.mark.parametrize("action", sorted(STAGE_ACTIONS.values()))
def test_no_stage_of_secure_aggregation_is_followed_without_a_card(federation, action):
    federation.limit(card="required")
    order = replace(federation.run.pretrain(), action=action, masking={"x": 1})
    assert answer(federation, order) == Refusal(code="policy_card", text=CARD_REASONS["none"])


def test_a_rehearsal_opens_no_data_and_needs_no_card(federation):
    federation.limit(card="required")
    assert isinstance(answer(federation, federation.run.rehearse()), Report)


def test_orders_are_followed_while_the_card_is_of_the_data(federation):
    root = federation.sites["north"]
    federation.limit(card="required")
    write_card(root, build(root))
    assert isinstance(answer(federation, federation.run.pretrain()), Report)
    change(root)
    assert answer(federation, federation.run.pretrain(2)) == Refusal(code="policy_card", text=CARD_REASONS["stale"])


def test_a_word_that_is_no_limit_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"policy\.runs\.card in site\.yaml is 'yes'; choose required or optional"
    ):
        RunLimits(card="yes")
