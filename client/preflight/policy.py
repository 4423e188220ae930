"""The run, held to the site's own limits by the very code that every order meets at the site's door."""

from collections.abc import Callable
from datetime import time

from client.config import RunLimits
from client.errors import GateError
from client.gate import REHEARSE, check_code, check_order, check_records
from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed
from client.preflight.run import with_vocabulary
from client.privacy.errors import PolicyError
from client.privacy.policy import check_run, read_policy
from mumc_model.config import Recipe
from protocol.bundle import installed_digest
from protocol.messages import Order


def policy(case: Case) -> Finding:
    """Whether the site would follow the run's orders."""
    limits = case.config.policy.runs
    if limits is None:
        return failed(
            "site.yaml sets no limits (policy.runs), and without them this site trains nothing",
            f"write the usual ones with: mumc-site limits {case.root} --write",
        )
    recipe = with_vocabulary(case.run.recipe, case.vocabulary_size)
    orders = case.run.orders(case.vocabulary_size, case.sites)
    reasons = [reason for order in orders if (reason := _refused(case, limits, order, recipe))]
    if reasons:
        return failed(
            f"{case.run.name} would be refused: {'; '.join(dict.fromkeys(reasons))}",
            "change the limits in site.yaml, or ask the operator for a run within them",
        )
    hours = f", at {limits.hours}" if limits.hours else ""
    return passed(f"{case.run.name} is within this site's limits{hours}")


def _refused(case: Case, limits: RunLimits, order: Order, recipe: Recipe) -> str:
    """Why an order would be refused, or nothing. The hours are those at which orders are followed at all."""
    start = time.fromisoformat(limits.hours.split("-")[0]) if limits.hours else time()
    installed = installed_digest()
    checks: list[Callable[[], None]] = [
        lambda: check_code(limits, installed, installed),
        lambda: check_order(limits, order, recipe, start),
    ]
    if order.action != REHEARSE:
        checks.append(lambda: check_run(read_policy(case.root), recipe.privacy))
    if order.action == "train.pretrain":
        checks.append(lambda: _check_size(case, limits))
    if order.masking:
        checks.append(lambda: _check_sites(limits, case.sites))
    for check in checks:
        try:
            check()
        except (GateError, PolicyError) as error:
            return str(error)
    return ""


def _check_size(case: Case, limits: RunLimits) -> None:
    signed = read_policy(case.root)
    check_records(limits, signed.units if signed else len(case.data.captions))


def _check_sites(limits: RunLimits, sites: int) -> None:
    """As the site itself holds a session to it, once its federation is known."""
    if 0 < sites < limits.min_sites:
        raise GateError(
            "policy_min_sites",
            f"the federation has {sites} sites, and this site hides among no fewer than {limits.min_sites} "
            "(policy.runs.min_sites)",
        )
