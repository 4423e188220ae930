"""Plans: what cannot be planned is refused, the numbers are the accountants', and the cache never changes one."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from client.privacy import plan_cache, planner
from client.privacy.accounting import attack_bound, epsilon_pld, epsilon_rdp, posterior
from client.privacy.errors import BudgetExceededError, PlanError
from client.privacy.event import Event
from client.privacy.plan import Plan, PlanRequest
from client.privacy.planner import compute, plan_for


def request(**changes):
    numbers = {"patients": 5000, "batch": 64, "steps": 50, "rounds": 100, "noise_multiplier": 1.0, "delta": 1e-5}
    return PlanRequest(**{**numbers, **changes})


@pytest.fixture(scope="module")
def plan():
    return compute(request(cap=5.576))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fedmumc" / "plans"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 2.1e-5}, r"5,000 patients.*2e-05"),
        ({"delta": 0.0}, "delta is 0"),
        ({"delta": math.nan}, "delta is nan"),
        ({"batch": 5001}, "5,001 is more than the 5,000"),
        ({"batch": 0}, "batch is 0"),
        ({"patients": -5}, "patients is -5"),
        ({"steps": 0}, "steps is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"noise_multiplier": None}, "neither of noise and epsilon"),
        ({"epsilon": 3.0}, "both of noise and epsilon"),
        ({"noise_multiplier": None, "epsilon": 0.0}, "epsilon is 0"),
        ({"noise_multiplier": None, "epsilon": -1.0}, "epsilon is -1"),
        ({"noise_multiplier": 0.0}, "noise multiplier is 0"),
        ({"noise_multiplier": math.nan}, "noise multiplier is nan"),
        ({"cap": 0.0}, "cap is 0"),
        ({"cap": math.inf}, "cap is inf"),
    ],
)
def test_impossible_numbers_are_refused_with_what_is_wrong(changes, message):
    with pytest.raises(PlanError, match=message):
        request(**changes)


def test_the_largest_delta_and_a_batch_of_everybody_are_allowed():
    assert request(delta=1 / 50_000, batch=5000).sample_rate == 1


def test_a_plan_holds_what_the_accountants_say(plan):
    event = Event(sample_rate=0.0128, noise_multiplier=1.0, steps=5000)
    assert (plan.sample_rate, plan.steps, plan.noise_multiplier) == (0.0128, 5000, 1.0)
    assert plan.epsilon == epsilon_pld([event], 1e-5)
    assert plan.epsilon_rdp == plan.epsilon_after == epsilon_rdp([event], 1e-5)
    assert plan.true_positive_rate == attack_bound([event], 0.01)
    assert plan.posterior == posterior(plan.epsilon)
    assert plan.epsilon_spent == 0


def test_a_cap_planned_by_pld_stops_the_run_earlier_under_rdp(plan):
    assert plan.stops_at_step == 4275
    assert plan.stops_at_round == 86


def test_a_round_that_ends_exactly_at_the_cap_is_not_refused():
    plan = compute(request(cap=5.576, steps=4275, rounds=2))
    assert (plan.stops_at_step, plan.stops_at_round) == (4275, 2)


def test_a_plan_under_its_cap_stops_nowhere():
    plan = compute(request(cap=7.0))
    assert plan.stops_at_step is plan.stops_at_round is None


def test_a_plan_without_a_cap_stops_nowhere():
    plan = compute(request(rounds=1))
    assert plan.stops_at_step is plan.stops_at_round is plan.cap is None


def test_what_twice_the_rounds_would_cost_is_the_plan_with_twice_the_rounds(plan):
    longer = compute(request(rounds=200))
    assert (plan.doubled_epsilon, plan.doubled_epsilon_after) == (longer.epsilon, longer.epsilon_after)


def test_a_plan_for_an_epsilon_finds_the_noise_that_keeps_it():
    plan = compute(request(noise_multiplier=None, epsilon=5.576))
    assert plan.epsilon <= 5.576
    assert plan.noise_multiplier == pytest.approx(1.0, abs=2e-4)


def test_what_was_spent_counts_for_the_life_time_and_not_for_the_plan(plan):
    spent = (Event(sample_rate=0.0128, noise_multiplier=1.0, steps=1000),)
    later = compute(request(cap=5.576, spent=spent))
    assert later.epsilon == plan.epsilon
    assert later.epsilon_spent == epsilon_rdp(spent, 1e-5) > 0
    assert later.epsilon_after > plan.epsilon_after
    assert later.stops_at_step == 3275
    assert later.epsilon_after_over_steps[0] == (0, later.epsilon_spent)


def test_a_cap_that_is_spent_already_is_refused_with_both_numbers():
    spent = (Event(sample_rate=0.0128, noise_multiplier=1.0, steps=5000),)
    with pytest.raises(BudgetExceededError, match=r"6\.071.*cap is 5\.576"):
        compute(request(cap=5.576, spent=spent))


def test_a_filter_of_the_sites_order_is_what_the_cap_counts_by(plan):
    fixed = compute(request(cap=5.576, order=2.0))
    assert fixed.stops_at_step < plan.stops_at_step
    assert fixed.epsilon_after > plan.epsilon_after
    assert fixed.epsilon_rdp == plan.epsilon_rdp


def test_the_curves_rise_end_at_the_plan_and_lie_at_the_ends_of_rounds(plan):
    for curve, end in ((plan.epsilon_over_steps, plan.epsilon), (plan.epsilon_after_over_steps, plan.epsilon_after)):
        steps, epsilons = zip(*curve, strict=True)
        assert curve[-1] == (5000, end)
        assert sorted(set(steps)) == list(steps)
        assert sorted(epsilons) == list(epsilons)
        assert all(step % 50 == 0 for step in steps if step > 1)


def test_epsilon_falls_over_delta_and_passes_through_the_plan(plan):
    deltas, epsilons = zip(*plan.epsilon_over_delta, strict=True)
    assert sorted(epsilons, reverse=True) == list(epsilons)
    assert max(deltas) <= 1 / 50_000
    assert (plan.delta, plan.epsilon) in plan.epsilon_over_delta


def test_the_noise_for_another_cap_makes_the_whole_plan_fit_under_it(plan):
    for cap, noise in plan.noise_over_cap:
        assert epsilon_rdp([Event(sample_rate=0.0128, noise_multiplier=noise, steps=5000)], 1e-5) <= cap
        assert epsilon_rdp([Event(sample_rate=0.0128, noise_multiplier=0.998 * noise, steps=5000)], 1e-5) > cap


def test_no_noise_is_named_for_a_cap_that_is_spent():
    spent = (Event(sample_rate=0.0128, noise_multiplier=1.0, steps=1000),)
    plan = compute(request(spent=spent, noise_multiplier=2.0))
    assert [cap for cap, _ in plan.noise_over_cap] == [cap for cap in planner.CAPS if cap > plan.epsilon_spent]
    assert plan.noise_over_cap[0][0] > 1


def test_a_plan_of_one_step_has_every_number():
    plan = compute(request(steps=1, rounds=1, cap=1.0))
    assert [step for step, _ in plan.epsilon_over_steps] == [1]
    assert 0.5 <= plan.posterior < 1
    assert json.loads(json.dumps(plan.to_dict(), allow_nan=False))["steps"] == 1


def test_a_plan_comes_back_from_json_as_it_was(plan):
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict(), allow_nan=False))) == plan


def fail(_request):
    raise AssertionError("a plan was computed that is in the cache")


@pytest.fixture
def only_cached(monkeypatch):
    """The function after which nothing may be computed any more."""
    return lambda: monkeypatch.setattr(planner, "compute", fail)


@pytest.fixture
def known(plan, monkeypatch):
    """Let planning give this plan, and count how often it is asked for it."""
    asked = []
    monkeypatch.setattr(planner, "compute", lambda request: asked.append(request) or plan)
    return asked


def test_the_same_question_is_computed_once_and_answered_from_disk(plan, known, only_cached):
    first = plan_for(request(cap=5.576))
    only_cached()
    assert plan_for(request(cap=5.576)) == first == plan


@pytest.mark.parametrize(
    "changes",
    [
        {"cap": 5.577},
        {"rounds": 101},
        {"delta": 1.1e-5},
        {"order": 4.3},
        {"spent": (Event(sample_rate=0.01, noise_multiplier=1.0, steps=1),)},
    ],
)
def test_another_question_is_computed(known, changes):
    plan_for(request())
    plan_for(request(**changes))
    assert len(known) == 2


def test_another_version_of_the_accountant_is_asked_again(known, monkeypatch):
    plan_for(request())
    monkeypatch.setattr(plan_cache, "version", lambda name: "99.0")
    plan_for(request())
    assert len(known) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"key": 1, "plan": {}}',
        "\udcff",
    ],
)
def test_a_broken_cache_file_is_ignored_and_written_again(cache, known, only_cached, plan, text):
    plan_for(request())
    (file,) = cache.iterdir()
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert plan_for(request()) == plan
    assert len(known) == 2
    only_cached()
    assert plan_for(request()) == plan


def test_a_cache_file_that_lacks_a_number_is_ignored(cache, known):
    plan_for(request())
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    del kept["plan"]["epsilon"]
    file.write_text(json.dumps(kept))
    plan_for(request())
    assert len(known) == 2


def test_a_cache_file_of_another_question_is_ignored(cache, known):
    plan_for(request())
    (first,) = cache.iterdir()
    plan_for(request(rounds=7))
    (second,) = set(cache.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    plan_for(request(rounds=7))
    assert len(known) == 3


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, known, plan):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert plan_for(request()) == plan


def test_without_a_setting_the_cache_is_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert plan_cache.folder() == tmp_path / "home" / ".cache" / "fedmumc" / "plans"


def test_a_refused_plan_leaves_nothing_in_the_cache(cache):
    spent = (Event(sample_rate=1.0, noise_multiplier=1.0, steps=50),)
    with pytest.raises(BudgetExceededError):
        plan_for(request(cap=1.0, spent=spent))
    assert not cache.exists()


def test_a_known_plan_needs_neither_torch_nor_any_accountant(cache, known):
    asked = request()
    plan_for(asked)
    code = (
        "import sys\n"
        "from client.privacy.plan import PlanRequest\n"
        "from client.privacy.planner import plan_for\n"
        f"plan_for(PlanRequest(**{dataclasses.asdict(asked)!r}))\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'dp_accounting'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("cap", [None, 3.0])
def test_a_sketch_says_what_the_plan_says_by_rdp(cap):
    request = PlanRequest(patients=5000, batch=64, steps=50, rounds=40, noise_multiplier=1.2, delta=1e-6, cap=cap)
    whole = planner.compute(request).to_dict()
    drawn = planner.sketch(request).to_dict()
    assert drawn == {name: whole[name] for name in drawn}
    assert whole.keys() - drawn.keys() >= {"epsilon", "true_positive_rate", "noise_over_cap"}


def test_a_sketch_for_an_epsilon_keeps_it_with_more_noise_than_the_plan():
    request = PlanRequest(patients=5000, batch=64, steps=50, rounds=40, epsilon=3.0, delta=1e-6)
    drawn, whole = planner.sketch(request), planner.compute(request)
    assert drawn.epsilon_rdp <= 3.0
    assert whole.noise_multiplier < drawn.noise_multiplier < 1.2 * whole.noise_multiplier
