"""From a request to a plan: both accountants, where the cap ends it, and the curves beside it."""

from dataclasses import fields

from client.privacy import plan_cache
from client.privacy.errors import BudgetExceededError, PlanError
from client.privacy.event import Event
from client.privacy.plan import Curve, Plan, PlanRequest, Sketch

FALSE_POSITIVE_RATE = 0.01
PLD_POINTS, RDP_POINTS = 8, 48
"""On the curves over steps; a loss distribution costs a thousand times more."""
CAPS = (1.0, 2.0, 4.0, 8.0)
QUICK_TOLERANCE = 0.02
"""Of the noise in a sketch, relative; each look at a noise takes a twentieth of a second."""


def plan_for(request: PlanRequest) -> Plan:
    """The plan of this request, from this machine's cache where it was asked before.

    Raises:
        PlanError: no noise keeps the epsilon, or the noise protects nothing.
        BudgetExceededError: the cap is spent already.
    """
    found = plan_cache.find(request)
    if found is None:
        found = compute(request)
        plan_cache.keep(request, found)
    return found


def compute(request: PlanRequest) -> Plan:
    """The plan of this request, computed.

    Raises:
        PlanError: no noise keeps the epsilon, or the noise protects nothing.
        BudgetExceededError: the cap is spent already.
    """
    from client.privacy import accounting

    noise = _noise(request)
    event, twice = request.event(noise), request.event(noise, steps=2 * request.steps * request.rounds)
    delta = request.delta
    drawn = _sketch(request, noise)
    epsilon = accounting.epsilon_pld([event], delta)
    return Plan(
        **{field.name: getattr(drawn, field.name) for field in fields(Sketch)},
        epsilon=epsilon,
        accountant=accounting.PLD_NAME,
        doubled_epsilon=accounting.epsilon_pld([twice], delta),
        false_positive_rate=FALSE_POSITIVE_RATE,
        true_positive_rate=accounting.attack_bound([event], FALSE_POSITIVE_RATE),
        posterior=accounting.posterior(epsilon),
        epsilon_over_steps=_over_steps(request, noise),
        epsilon_over_delta=_over_delta(request, event),
        noise_over_cap=_noise_over_cap(request, drawn.epsilon_spent),
    )


def sketch(request: PlanRequest) -> Sketch:
    """What RDP alone says of this request, in a fraction of a second.

    Where an epsilon is given, the noise is up to 2 % more than RDP needs for it, and PLD needs less still.

    Raises:
        PlanError: no noise keeps the epsilon, or the noise protects nothing.
        BudgetExceededError: the cap is spent already.
    """
    from client.privacy.accounting import epsilon_rdp
    from client.privacy.calibration import least_noise

    if request.epsilon is None:
        return _sketch(request, _noise(request))
    noise = least_noise(
        lambda noise: epsilon_rdp([request.event(noise)], request.delta), request.epsilon, tolerance=QUICK_TOLERANCE
    )
    return _sketch(request, noise)


def _sketch(request: PlanRequest, noise: float) -> Sketch:
    from client.privacy import accounting

    spent = _spent(request)
    event, twice = request.event(noise), request.event(noise, steps=2 * request.steps * request.rounds)
    last = _last_step(request, noise)
    return Sketch(
        patients=request.patients,
        batch=request.batch,
        rounds=request.rounds,
        steps_a_round=request.steps,
        steps=event.steps,
        sample_rate=request.sample_rate,
        noise_multiplier=noise,
        delta=request.delta,
        epsilon_rdp=accounting.epsilon_rdp([event], request.delta),
        accountant_rdp=accounting.RDP_NAME,
        cap=request.cap,
        epsilon_spent=spent,
        epsilon_after=_after(request, event),
        stops_at_step=last,
        stops_at_round=None if last is None else last // request.steps + 1,
        doubled_epsilon_after=_after(request, twice),
        epsilon_after_over_steps=_after_over_steps(request, noise),
    )


def _spent(request: PlanRequest) -> float:
    from client.privacy.accounting import epsilon_rdp

    spent = epsilon_rdp(request.spent, request.delta, order=request.order)
    if request.cap is not None and spent >= request.cap:
        raise BudgetExceededError(
            f"epsilon {spent:.3f} at delta={request.delta:g} is spent by RDP, and the cap is {request.cap:.3f}; "
            "nothing more fits: plan under a larger cap, or on other patients"
        )
    return spent


def _noise(request: PlanRequest) -> float:
    from client.privacy.accounting import epsilon_rdp, noise_for

    if request.epsilon is not None:
        steps = request.steps * request.rounds
        return noise_for(epsilon=request.epsilon, delta=request.delta, sample_rate=request.sample_rate, steps=steps)
    noise = request.noise_multiplier or 0.0
    if epsilon_rdp([request.event(noise)], request.delta) == float("inf"):
        raise PlanError(f"noise {noise:g} protects nothing over {request.event(noise).steps:,} steps; choose more")
    return noise


def _after(request: PlanRequest, event: Event) -> float:
    from client.privacy.accounting import epsilon_rdp

    return epsilon_rdp([*request.spent, event], request.delta, order=request.order)


def _last_step(request: PlanRequest, noise: float) -> int | None:
    """The last step under the cap, where that is before the end of the plan."""
    from client.privacy.accounting import steps_within

    if request.cap is None:
        return None
    last = steps_within(
        spent=request.spent,
        sample_rate=request.sample_rate,
        noise_multiplier=noise,
        cap=request.cap,
        delta=request.delta,
        order=request.order,
    )
    return last if last < request.steps * request.rounds else None


def _over_steps(request: PlanRequest, noise: float) -> Curve:
    from client.privacy.accounting import epsilon_pld

    places = _places(request, PLD_POINTS)
    return tuple((float(step), epsilon_pld([request.event(noise, steps=step)], request.delta)) for step in places)


def _after_over_steps(request: PlanRequest, noise: float) -> Curve:
    places = sorted({0, 1, *_places(request, RDP_POINTS)})
    return tuple((float(step), _after(request, request.event(noise, steps=step))) for step in places)


def _places(request: PlanRequest, count: int) -> list[int]:
    """So many steps or fewer, the last one among them, at the ends of rounds where there are enough of them."""
    stride = request.steps if request.rounds >= count else 1
    total = request.steps * request.rounds // stride
    return sorted({stride * -(-total * (index + 1) // count) for index in range(count)})


def _over_delta(request: PlanRequest, event: Event) -> Curve:
    """From a millionth of a millionth to the largest delta that is allowed."""
    from client.privacy.accounting import epsilon_pld

    exponents = range(-12, 0)
    deltas = sorted({10.0**e for e in exponents if 10 * request.patients * 10.0**e <= 1} | {request.delta})
    return tuple((delta, epsilon_pld([event], delta)) for delta in deltas)


def _noise_over_cap(request: PlanRequest, spent: float) -> Curve:
    """At the best order, for another cap has an order of its own; within 0.1 %."""
    from client.privacy.accounting import epsilon_rdp
    from client.privacy.calibration import least_noise

    def after(noise: float) -> float:
        return epsilon_rdp([*request.spent, request.event(noise)], request.delta)

    return tuple((cap, least_noise(after, cap, tolerance=1e-3)) for cap in CAPS if cap > spent)
