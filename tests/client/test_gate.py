"""The site's limits: what an order may ask, before any data is opened."""

import json
from dataclasses import replace
from datetime import time

import numpy as np
import pytest

from client.config import RunLimits
from client.errors import GateError
from client.faults import refusal
from client.gate import approximate_parameters, check_code, check_order, check_records, released
from client.seal import check_leaves
from configs.compose import compose
from configs.loader import ConfigurationError, dump, load
from mumc_model.config import Recipe
from protocol.errors import UnexpectedWeightsError
from protocol.messages import STAGE_ACTIONS, Refusal, Report
from protocol.signing import payload_hash
from server.config import RunConfig

NOON = time(12)


@pytest.fixture
def order(server):
    return replace(server.pretrain(), steps=5, total_steps=5)


def recipe(order):
    return load(Recipe, order.recipe)


def code_of(limits, order, now=NOON):
    with pytest.raises(GateError) as refused:
        check_order(limits, order, recipe(order), now)
    return refused.value


def test_an_order_within_the_limits_passes(order):
    check_order(RunLimits(secure_aggregation="allowed"), order, recipe(order), NOON)


def test_where_masks_are_required_a_plain_order_is_refused_and_every_stage_passes(order):
    assert code_of(RunLimits(), order).code == "policy_secure_aggregation"
    for action in sorted(STAGE_ACTIONS.values()):
        check_order(RunLimits(), replace(order, action=action, masking={"x": 1}), recipe(order), NOON)


@pytest.mark.parametrize("action", sorted(STAGE_ACTIONS.values()))
def test_every_stage_is_held_to_the_limits_of_training(order, action):
    masked = replace(order, action=action, masking={"x": 1})
    assert code_of(RunLimits(max_steps=4), masked).code == "policy_steps"
    assert code_of(RunLimits(privacy="required"), masked).code == "policy_privacy"
    error = code_of(RunLimits(actions=("train.finetune",)), masked)
    assert str(error) == (
        "the order's action is train.pretrain, and this site follows train.finetune (policy.runs.actions)"
    )


def test_beside_a_stage_leaves_one_vector_of_words_and_never_the_weights(server):
    base = {"float16": np.zeros(2, "float16"), "float32": np.zeros(3, "float32")}
    plain = server.pretrain()
    masked = replace(plain, masking={"x": 1})
    report = Report(run_id="r", round=1, attempt=1, site="s", examples=1, metrics={}, base_digest="0" * 64)
    for words in ("uint32", "uint64"):
        check_leaves(report, {words: np.zeros(5, words)}, masked, base)
    check_leaves(report, base, plain, base)
    for arrays, order in (
        (base, masked),
        ({"uint32": np.zeros(4, "uint32")}, masked),
        ({"uint32": np.zeros(5, "uint32"), "uint64": np.zeros(5, "uint64")}, masked),
        ({"float32": np.zeros(5, "float32")}, masked),
        ({"uint32": np.zeros(5, "uint32")}, plain),
    ):
        with pytest.raises(UnexpectedWeightsError):
            check_leaves(report, arrays, order, base)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"actions": ("train.finetune",)}, "policy_actions"),
        ({"recipes": ("0" * 64,)}, "policy_recipes"),
        ({"max_steps": 4}, "policy_steps"),
        ({"min_steps": 6}, "policy_min_steps"),
        ({"max_batch": 1}, "policy_batch"),
        ({"max_image_size": 8}, "policy_image_size"),
        ({"max_parameters": 10}, "policy_parameters"),
        ({"privacy": "required"}, "policy_privacy"),
        ({"hours": "19:00-07:00"}, "policy_hours"),
    ],
)
def test_an_order_beyond_a_limit_is_refused_under_its_name(order, limits, code):
    assert code_of(RunLimits(**{"secure_aggregation": "allowed"} | limits), order).code == code


def test_the_reason_names_the_numbers_and_is_told_to_the_server(order):
    error = code_of(RunLimits(max_steps=4), order)
    assert str(error) == "the order's steps is 5, and this site allows at most 4 (policy.runs.max_steps)"
    assert refusal(error) == Refusal(code="policy_steps", text=str(error))


def with_recipe(order, section, **values):
    """The order with these values in a section of its recipe, as `finetune` or `model.vision`."""
    plain = json.loads(json.dumps(order.recipe))
    place = plain
    for name in section.split("."):
        place = place[name]
    place.update(values)
    return replace(order, recipe=plain)


def test_a_million_steps_of_fine_tuning_are_refused_whatever_number_the_order_names(server):
    order = with_recipe(replace(server.finetune(), steps=1), "finetune", steps=1_000_000)
    assert str(code_of(RunLimits(), order)) == (
        "the order's steps is 1,000,000, and this site allows at most 2,000 (policy.runs.max_steps)"
    )
    check_order(RunLimits(max_steps=4), server.finetune(), recipe(server.finetune()), NOON)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("finetune", {"decoder_layers": 10**6}),
        ("model", {"projection": 10**8}),
        ("model", {"queue_size": 10**9}),
        ("model.text", {"vocab_size": 10**9}),
        ("model.text", {"max_positions": 10**9}),
        ("objective", {"mim": 1.0, "mim_depth": 10**6}),
    ],
    ids=["decoder", "projection", "queue", "vocabulary", "positions", "reconstruction"],
)
def test_no_size_of_a_recipe_escapes_the_limit_of_what_a_model_may_hold(order, section, values):
    asked = with_recipe(order, section, **values)
    assert code_of(RunLimits(secure_aggregation="allowed"), asked).code == "policy_parameters"


def test_the_model_of_the_paper_is_within_the_usual_limits():
    whole = load(Recipe, dump(load(RunConfig, compose("run", ["model=base"])).recipe))
    assert 150_000_000 < approximate_parameters(whole) < RunLimits().max_parameters


@pytest.mark.parametrize("name", ["expected_batch", "physical_batch"])
def test_batches_under_differential_privacy_are_held_to_the_limit_too(order, name):
    asked = with_recipe(order, "privacy", unit="patient", **{name: 10**6})
    asked = with_recipe(asked, "model", queue_size=0)
    assert code_of(RunLimits(secure_aggregation="allowed"), asked).code == "policy_batch"


@pytest.mark.parametrize("action", ["evaluate.vqa", "train.finetune"])
def test_where_privacy_is_required_nothing_learns_from_patients_without_it(server, action):
    order = server.finetune() if action == "train.finetune" else server.evaluate()
    check_order(RunLimits(), order, recipe(order), NOON)
    assert str(code_of(RunLimits(privacy="required"), order)) == (
        "the run is not differentially private, which this site requires (policy.runs.privacy)"
    )


def test_a_rehearsal_is_no_way_to_keep_a_site_at_work(server):
    check_order(RunLimits(), server.rehearse(), recipe(server.rehearse()), NOON)
    assert str(code_of(RunLimits(), replace(server.rehearse(), steps=2000))) == (
        "the order rehearses 2,000 steps, and a rehearsal has at most 2"
    )


def test_a_recipe_is_accepted_by_its_digest(order):
    check_order(
        RunLimits(secure_aggregation="allowed", recipes=(payload_hash(order.recipe),)), order, recipe(order), NOON
    )


def test_hours_go_over_midnight(order):
    check_order(RunLimits(secure_aggregation="allowed", hours="19:00-07:00"), order, recipe(order), time(23, 30))
    check_order(RunLimits(secure_aggregation="allowed", hours="19:00-07:00"), order, recipe(order), time(6, 59))


def test_only_code_whose_digest_the_site_accepts_is_followed():
    check_code(RunLimits(), "a" * 64, "a" * 64)
    check_code(RunLimits(code=("b" * 64,)), "b" * 64, "a" * 64)
    for limits, code in ((RunLimits(), "b" * 64), (RunLimits(), ""), (RunLimits(code=()), "a" * 64)):
        with pytest.raises(GateError, match="install the same fedmumc at both ends"):
            check_code(limits, code, "a" * 64)


def test_a_deployed_site_that_has_joined_nothing_follows_no_order(server, folder):
    from flwr.app import Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from client.app import app
    from protocol.records import reply_from_record, to_record

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(to_record(server.pretrain(), server.base), 101, "train.pretrain")
    message.metadata.__dict__["_message_id"] = "message-1"
    context = Context(
        run_id=1, node_id=101, node_config={"site": str(folder)}, state=RecordDict(), run_config={"trial": True}
    )
    answer, arrays = reply_from_record(app(message, context).content)
    assert (answer.code, arrays) == ("not_joined", {})


def test_too_few_records_are_refused_without_saying_how_many():
    check_records(RunLimits(min_records=3), 3)
    with pytest.raises(GateError) as refused:
        check_records(RunLimits(min_records=3), 2)
    assert not any(digit in str(refused.value) for digit in "0123456789")


@pytest.mark.parametrize(
    ("values", "said"),
    [({"max_steps": 0}, "choose 1 or more"), ({"hours": "7-19"}, "write it as 19:00-07:00")],
)
def test_limits_that_mean_nothing_are_refused(values, said):
    with pytest.raises(ConfigurationError, match=said):
        RunLimits(**values)


def test_metrics_leave_by_name(server):
    from client.config import PolicyConfig, SiteConfig

    report = Report(
        run_id="r", round=1, attempt=1, site="s", examples=1, metrics={"loss": 1.0, "itm": 2.0}, base_digest="0" * 64
    )
    config = SiteConfig(name="s", policy=PolicyConfig(runs=RunLimits(metrics=("l*",))))
    assert released(config, report) == ({"loss": 1.0}, ["itm"])
    assert released(SiteConfig(name="s"), report) == (dict(report.metrics), [])
