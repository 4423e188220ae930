"""Which numbers can be an epsilon or a delta at all."""

from client.privacy.errors import PlanError

LARGEST_EPSILON = 1e3
"""Above it nothing is promised any more; a loss distribution that reaches so far would fill the memory."""


def check_delta(delta: float) -> None:
    """Return where delta is between 0 and 1, both left out.

    Raises:
        PlanError: it is not.
    """
    if not 0 < delta < 1:
        raise PlanError(f"delta is {delta}; choose it above 0 and below 1, for instance 1e-6")


def check_delta_for(delta: float, patients: int) -> None:
    """Return where delta is at most a tenth of one patient's share: more would allow a patient to be given away whole.

    Raises:
        PlanError: it is not.
    """
    check_delta(delta)
    largest = 1 / (10 * patients)
    if delta > largest:
        raise PlanError(
            f"delta {delta:g} is too large for {patients:,} patients; choose at most 1/(10 N) = {largest:.2g}"
        )


def check_epsilon(epsilon: float, name: str = "epsilon") -> None:
    """Return where epsilon can be a target or a cap.

    Raises:
        PlanError: it cannot.
    """
    if not 0 < epsilon <= LARGEST_EPSILON:
        raise PlanError(f"{name} is {epsilon}; choose it above 0 and at most {LARGEST_EPSILON:g}")
