"""Events: what no accountant could price is refused, and merging changes no history."""

import json
import math

import pytest

from client.privacy.errors import PlanError
from client.privacy.event import ADJACENCY, MECHANISM, Event, merge


def event(sample_rate=0.01, noise_multiplier=1.0, steps=10):
    return Event(sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps)


@pytest.mark.parametrize("sample_rate", [0.0, -0.1, 1.0001, math.nan])
def test_a_sample_rate_that_is_no_probability_of_entering_is_refused(sample_rate):
    with pytest.raises(PlanError, match="sample rate"):
        event(sample_rate=sample_rate)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_no_noise_or_endless_noise_is_refused(noise):
    with pytest.raises(PlanError, match="noise multiplier"):
        event(noise_multiplier=noise)


def test_fewer_than_no_steps_are_refused():
    with pytest.raises(PlanError, match="-1 steps"):
        event(steps=-1)


def test_an_event_comes_back_from_json_as_it_was_and_names_its_mechanism():
    written = json.dumps(event(0.1 + 0.2, 1 / 3).to_dict())
    assert Event.from_dict(json.loads(written)) == event(0.1 + 0.2, 1 / 3)
    assert MECHANISM in written
    assert ADJACENCY in written


@pytest.mark.parametrize(
    "change",
    [{"mechanism": "laplace"}, {"adjacency": "replace_one"}, {"clipping": 1.0}, {"mechanism": None}],
)
def test_an_event_of_another_kind_is_refused(change):
    with pytest.raises(PlanError, match="not known here"):
        Event.from_dict({**event().to_dict(), **change})


def test_an_event_that_lacks_a_number_is_refused():
    values = event().to_dict()
    del values["steps"]
    with pytest.raises(PlanError, match="not known here"):
        Event.from_dict(values)


def test_merging_adds_the_steps_of_equal_rows_and_keeps_the_others_apart():
    rows = [event(0.02, steps=3), event(0.01, steps=1), event(0.02, steps=4), event(0.02, 2.0, steps=5)]
    assert merge(rows) == (event(0.01, steps=1), event(0.02, steps=7), event(0.02, 2.0, steps=5))


def test_merging_takes_rows_in_any_order_and_leaves_out_those_without_steps():
    rows = [event(0.02, steps=3), event(0.01, steps=0), event(0.005, steps=2)]
    assert merge(rows) == merge(reversed(rows)) == (event(0.005, steps=2), event(0.02, steps=3))
