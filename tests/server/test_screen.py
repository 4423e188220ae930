import numpy as np
import pytest

from protocol.errors import ExamplesError, IdentityError, NotFiniteError, StaleError
from protocol.messages import Order, Report
from server.screen import Roster, check_answers, check_examples, check_finite

ORDER = Order(
    run_id="r",
    round=2,
    attempt=1,
    action="train.pretrain",
    recipe={},
    vocabulary=(),
    first_step=0,
    steps=1,
    total_steps=1,
    seed=0,
    base_digest="a" * 64,
)


def report(**changes) -> Report:
    fields = {
        "run_id": "r",
        "round": 2,
        "attempt": 1,
        "site": "",
        "examples": 5,
        "metrics": {},
        "base_digest": "a" * 64,
    }
    return Report(**{**fields, **changes})


def test_a_report_that_answers_the_order_passes():
    check_answers(report(), ORDER)


@pytest.mark.parametrize(
    "changes", [{"run_id": "q"}, {"round": 1}, {"round": 3}, {"attempt": 2}, {"base_digest": "b" * 64}]
)
def test_a_report_of_another_run_round_attempt_or_base_is_stale(changes):
    with pytest.raises(StaleError):
        check_answers(report(**changes), ORDER)


@pytest.mark.parametrize("examples", [1, 999, 1000])
def test_example_counts_up_to_the_limit_pass(examples):
    check_examples(report(examples=examples), 1000)


@pytest.mark.parametrize("examples", [10**12, 1001, 0, -50])
def test_example_counts_outside_the_limit_are_refused(examples):
    with pytest.raises(ExamplesError, match=rf"claims {examples} examples, outside 1 to 1000; raise strategy.max_exam"):
        check_examples(report(examples=examples), 1000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_an_update_that_makes_a_weight_not_finite_is_refused(bad):
    base = {"float32": np.full(70_000, 1e38, "float32")}
    update = np.zeros(70_000, "float32")
    check_finite({"float32": update}, base)
    update[[3, 69_999]] = bad
    with pytest.raises(NotFiniteError, match="2 values"):
        check_finite({"float32": update}, base)


def test_a_node_goes_by_its_own_name_or_its_id_in_hex():
    roster = Roster()
    roster.claim(10, "north", [10, 11])
    roster.claim(11, "", [10, 11])
    assert (roster.name(10), roster.name(11)) == ("north", "000000000000000b")


def test_a_node_cannot_take_the_name_of_another_that_is_online():
    roster = Roster()
    roster.claim(10, "north", [10, 11])
    for name in ("north", "000000000000000c"):
        with pytest.raises(IdentityError):
            roster.claim(11, name, [10, 11, 12])
    assert roster.name(11) == "000000000000000b"


def test_a_site_that_comes_back_as_another_node_keeps_its_name():
    roster = Roster()
    roster.claim(10, "north", [10, 11])
    roster.claim(12, "north", [11, 12])
    assert roster.name(12) == "north"
