"""Which numbers can be an epsilon or a delta at all."""

from client.privacy.errors import PlanError, PrivacyError

LARGEST_EPSILON = 1e3
"""Above it nothing is promised any more; a loss distribution that reaches so far would fill the memory."""


def check_delta(delta: float, error: type[PrivacyError] = PlanError) -> None:
    """Return where delta is between 0 and 1, both left out.

    Raises:
        PrivacyError: it is not; of the kind that is given.
    """
    if not 0 < delta < 1:
        raise error(f"delta is {delta}; choose it above 0 and below 1, for instance 1e-6")


def check_delta_for(delta: float, count: int, unit: str = "patient", error: type[PrivacyError] = PlanError) -> None:
    """Return where delta is at most a tenth of one unit's share: more would allow a unit to be given away whole.

    Raises:
        PrivacyError: it is not; of the kind that is given.
    """
    check_delta(delta, error)
    largest = 1 / (10 * max(count, 1))
    if delta > largest:
        raise error(f"delta {delta:g} is too large for {count:,} {unit}s; choose at most 1/(10 N) = {largest:.2g}")


def check_epsilon(epsilon: float, name: str = "epsilon") -> None:
    """Return where epsilon can be a target or a cap.

    Raises:
        PlanError: it cannot.
    """
    if not 0 < epsilon <= LARGEST_EPSILON:
        raise PlanError(f"{name} is {epsilon}; choose it above 0 and at most {LARGEST_EPSILON:g}")
