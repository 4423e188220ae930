import dataclasses

import pytest

from client.privacy.approving import numbers_for
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.plan import PlanRequest
from client.privacy.planner import sketch
from client.privacy.policy import sign_policy
from protocol.signing import new_key
from tests.client.privacy.officer import NAME, PATIENTS, charge, policy, write_site


@pytest.mark.parametrize(("noise", "cap"), [(1.23456789, 4.0), (2.0, 6.0)])
def test_the_policy_that_a_plan_asks_for_lets_it_run_to_its_end(tmp_path, noise, cap):
    request = PlanRequest(patients=1000, batch=64, steps=20, rounds=1, noise_multiplier=noise, delta=1e-6, cap=cap)
    numbers = numbers_for(sketch(request))
    root = write_site(tmp_path / "site")
    Ledger.open(root).approve(sign_policy(policy(**numbers), NAME, new_key()))
    event = Event(sample_rate=request.sample_rate, noise_multiplier=noise, steps=20)
    Ledger.open(root).reserve(dataclasses.replace(charge(), event=event), units=PATIENTS)


def test_without_a_cap_the_policy_allows_what_the_plan_brings_the_budget_to_and_no_less():
    request = PlanRequest(patients=1000, batch=64, steps=20, noise_multiplier=2.0, delta=1e-6)
    found = sketch(request)
    assert found.epsilon_after <= numbers_for(found)["epsilon"] < found.epsilon_after + 1e-4
