import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.compression import Codec
from protocol.errors import MessageError, NotFiniteError, ProtocolError, VersionError
from protocol.lowrank import LowRank
from protocol.messages import (
    ACTIONS,
    MAX_DEPTH,
    MAX_JSON_CHARS,
    STAGE_ACTIONS,
    Order,
    Refusal,
    Report,
    from_json,
    to_json,
)
from protocol.secagg.messages import STAGES

UNTIMED = settings(deadline=None, max_examples=50)

DIGEST = "0" * 64
ADAPTERS = LowRank(rank=2, factored=("*.fc.weight",), whole=())
ORDER = Order(
    run_id="run-1",
    round=2,
    attempt=1,
    action="train.pretrain",
    recipe={"model": {"projection": 32}, "objective": {"mcl": 1.0}},
    vocabulary=("[PAD]", "kidney"),
    first_step=50,
    steps=50,
    total_steps=300,
    seed=7,
    base_digest=DIGEST,
)
REPORT = Report(
    run_id="run-1", round=2, attempt=1, site="north", examples=150, metrics={"total": 2.5}, base_digest=DIGEST
)
REFUSAL = Refusal(code="data", text="2 of 10 images cannot be read")


def edited(message, **changes) -> str:
    values = json.loads(to_json(message))
    return json.dumps({name: value for name, value in {**values, **changes}.items() if value != "absent"})


@pytest.mark.parametrize("message", [ORDER, REPORT, REFUSAL], ids=lambda m: m.kind)
def test_a_message_survives_json(message):
    assert from_json(to_json(message)) == message


@UNTIMED
@given(
    st.dictionaries(st.text("abc. /", min_size=1, max_size=20), st.floats(-1e30, 1e30), max_size=5),
    st.integers(-(10**30), 10**30),
)
def test_any_finite_metrics_survive_json_to_the_last_bit(metrics, examples):
    report = dataclasses.replace(REPORT, metrics=metrics, examples=examples)
    assert from_json(to_json(report)) == report


def nested(levels):
    """A report whose masking holds so many levels of objects."""
    return to_json(REPORT).replace('"masking":{}', '"masking":' + '{"a":' * levels + "1" + "}" * levels)


def test_what_nests_without_end_is_refused_as_a_message_before_it_could_end_a_run():
    assert from_json(nested(MAX_DEPTH - 1)).masking
    for levels in (MAX_DEPTH, 500, *range(980, 1000), 100_000):
        with pytest.raises(MessageError):
            from_json(nested(levels))
    with pytest.raises(MessageError, match="more than 32 levels of objects and lists in one another"):
        from_json(nested(MAX_DEPTH))


def test_json_is_canonical():
    swapped = dataclasses.replace(ORDER, recipe=dict(reversed(ORDER.recipe.items())))
    assert to_json(swapped) == to_json(ORDER)
    assert " " not in to_json(ORDER)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"epochs": 3}, MessageError, "unknown field order.epochs"),
        ({"total_step": 3}, MessageError, r"unknown field order.total_step; did you mean 'total_steps'\?"),
        ({"steps": "absent", "seed": "absent"}, MessageError, "order lacks seed, steps"),
        ({"steps": "50"}, MessageError, "order.steps must be int, not str"),
        ({"steps": 50.0}, MessageError, "order.steps must be int, not float"),
        ({"steps": True}, MessageError, "order.steps must be int, not bool"),
        ({"steps": -1}, MessageError, "order.steps is -1, below 0"),
        ({"round": 0}, MessageError, "order.round is 0, below 1"),
        ({"seed": 2**63}, MessageError, "order.seed"),
        ({"action": "train.steal"}, MessageError, "order.action is 'train.steal'"),
        ({"run_id": "../../etc"}, MessageError, "order.run_id"),
        ({"run_id": "a\nb"}, MessageError, "order.run_id"),
        ({"base_digest": "abc"}, MessageError, "order.base_digest"),
        ({"vocabulary": ["a", 1]}, MessageError, "order.vocabulary must be a list of strings"),
        ({"vocabulary": "abc"}, MessageError, "order.vocabulary must be a list of strings"),
        ({"codec": {}}, MessageError, "order.codec holds a kind, a block and adapters"),
        ({"codec": {"kind": "int4", "block": 256, "adapters": {}}}, MessageError, "the codec is 'int4'"),
        ({"codec": "int8"}, MessageError, "order.codec must be an object"),
        ({"codec": "absent"}, MessageError, "order lacks codec"),
        ({"recipe": [1]}, MessageError, "order.recipe must be an object"),
        ({"version": 1}, VersionError, "version 1, this side speaks 2"),
        ({"version": "absent"}, VersionError, "version None"),
        ({"kind": "command"}, MessageError, "of kind 'command'"),
        ({"kind": "report"}, MessageError, "unknown field report."),
        ({"kind": ["order"]}, MessageError, "of kind"),
    ],
)
def test_an_order_with_a_bad_field_is_refused_by_name(changes, error, text):
    with pytest.raises(error, match=text):
        from_json(edited(ORDER, **changes))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"examples": 1e12}, MessageError),
        ({"examples": None}, MessageError),
        ({"examples": math.nan}, MessageError),
        ({"metrics": {"total": math.nan}}, NotFiniteError),
        ({"metrics": {"total": -math.inf}}, NotFiniteError),
        ({"metrics": {"total": 1e31}}, NotFiniteError),
        ({"metrics": {"total": 10**400}}, MessageError),
        ({"metrics": {"total": "2"}}, MessageError),
        ({"metrics": {"total": True}}, MessageError),
        ({"metrics": {"\x1b[2J": 1.0}}, MessageError),
        ({"metrics": {f"m{i}": 1.0 for i in range(513)}}, MessageError),
        ({"site": "\x1b]0;owned"}, MessageError),
        ({"site": "a/../b"}, MessageError),
    ],
)
def test_a_report_that_could_harm_a_journal_or_a_mean_is_refused(changes, error):
    with pytest.raises(error):
        from_json(edited(REPORT, **changes))


def test_a_number_that_json_does_not_have_is_not_written():
    order = dataclasses.replace(ORDER, recipe={"lr": math.nan})
    with pytest.raises(MessageError, match="JSON cannot carry"):
        to_json(order)


@UNTIMED
@given(st.text(max_size=50))
def test_text_that_is_no_message_raises_nothing_but_a_protocol_error(text):
    with pytest.raises(ProtocolError):
        from_json(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, "[]", "null", " " * (MAX_JSON_CHARS + 1)])
def test_hostile_json_is_refused(text):
    with pytest.raises(MessageError):
        from_json(text)


def test_a_refusal_is_one_printable_line():
    assert Refusal(code="data", text="a\n\x1b[2Jb   c\t" + "x" * 400).text.startswith("a [2Jb c xxx")
    assert len(Refusal(code="data", text="x" * 400).text) == 300
    with pytest.raises(MessageError, match=r"refusal\.code"):
        Refusal(code="No such code", text="")


def test_every_action_is_a_category_of_flower_and_a_handler():
    assert all(action.split(".")[0] in {"train", "evaluate", "query"} for action in ACTIONS)


def test_every_stage_of_secure_aggregation_has_one_action_in_the_stages_order():
    assert tuple(STAGE_ACTIONS) == STAGES
    assert len(set(STAGE_ACTIONS.values())) == len(STAGES)
    asked = {stage: dataclasses.replace(ORDER, action=a, masking={"x": 1}) for stage, a in STAGE_ACTIONS.items()}
    assert {stage: order.stage for stage, order in asked.items()} == {stage: stage for stage in STAGES}
    assert ORDER.stage == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"action": "query.share"}, "an order to query.share lacks order.masking"),
        ({"action": "train.finetune", "masking": {"x": 1}}, "an order to train.finetune carries order.masking"),
        ({"action": "evaluate.vqa", "masking": {"x": 1}}, "an order to evaluate.vqa carries order.masking"),
        ({"masking": [1]}, "order.masking must be an object"),
        (
            {"action": "query.share", "masking": {"x": 1}, "codec": {"kind": "int8", "block": 256, "adapters": {}}},
            "an order under masks names the codec int8;",
        ),
        (
            {"action": "query.share", "masking": {"x": 1}, "codec": Codec(adapters=ADAPTERS).to_dict()},
            "an order under masks names the codec float32 of factors;",
        ),
    ],
)
def test_masking_travels_in_the_orders_of_its_stages_only(changes, text):
    with pytest.raises(MessageError, match=text):
        from_json(edited(ORDER, **changes))


def test_no_two_errors_have_the_same_code():
    def tree(error):
        return [
            error,
            *(e for child in error.__subclasses__() if child.__module__ == "protocol.errors" for e in tree(child)),
        ]

    codes = [error.code for error in tree(ProtocolError)]
    assert len(codes) == len(set(codes)) > 10
