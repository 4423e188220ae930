"""What a cap lets through, and what is said where it does not."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.privacy.budget import cap_for, epsilon_with, filter_epsilon, filter_order, rounded_up
from client.privacy.errors import BudgetExceededError
from client.privacy.event import Event
from tests.client.privacy.officer import POLICY, charge

ORDER = 8.0


@given(epsilon=st.floats(0, 1e3))
def test_what_is_said_outside_is_never_below_what_was_spent_nor_far_above_it(epsilon):
    assert epsilon <= rounded_up(epsilon) < epsilon + 1.0001e-4


@pytest.mark.parametrize(
    ("purpose", "what", "remedy"),
    [
        ("finetune", "fine-tuning of 5,000 steps would raise", "take fewer steps (finetune.steps), or ask"),
        ("metrics", "a release of metrics would raise", "raise privacy.finetune.metrics_noise"),
        ("pretrain", "round 1 would raise", "train fewer rounds, or ask the privacy officer"),
    ],
)
def test_a_refusal_names_the_work_and_the_settings_that_would_make_it_cheaper(purpose, what, remedy):
    asked = dataclasses.replace(charge(steps=5000), purpose=purpose)
    with pytest.raises(BudgetExceededError) as refused:
        epsilon_with(POLICY, (), asked, ORDER)
    assert str(refused.value).startswith(what)
    assert remedy in str(refused.value)


@pytest.mark.parametrize("last", [0.7, 2.0, 20.0])
def test_a_cap_for_events_is_filled_by_them_at_the_order_that_the_first_one_fixes(last):
    first = Event(sample_rate=0.1, noise_multiplier=1.1, steps=50)
    events = [first, Event(sample_rate=1.0, noise_multiplier=last, steps=1)]
    cap = cap_for(events, 1e-5)
    assert filter_epsilon(events, 1e-5, filter_order(cap, 1e-5, first)) <= cap
    assert cap <= 1.25 * filter_epsilon(events, 1e-5, None)
