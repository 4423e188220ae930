"""The site's data card, as the gate will look at it before each order that trains."""

from client.datacard.stamp import card_state
from client.errors import GateError
from client.gate import check_card, check_counts
from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, warned
from protocol.messages import STATISTICS


def card(case: Case) -> Finding:
    """Whether there is a card of the data as it is, where the site's limits ask for one."""
    remedy = f"look at the data and make its card: mumc-site card {case.root}"
    state, limits = card_state(case.root), case.config.policy.runs
    if limits is not None:
        try:
            check_card(limits, case.root)
        except GateError as error:
            return failed(str(error).partition("; ")[0], remedy)
    if state == "stale":
        return warned("the data has changed since its card was made", remedy)
    if state == "old":
        return warned("the card is of an earlier fedmumc, which did not look at the image files", remedy)
    if limits is not None and STATISTICS in limits.actions:
        try:
            check_counts(limits, case.root)
        except GateError as error:
            return warned(
                f"policy.runs.actions lists {STATISTICS}, but {str(error).partition('; ')[0]}",
                f"approve the card: mumc-site card {case.root} --approve; or take {STATISTICS} out of site.yaml",
            )
    if state == "none":
        return passed("none, and none is required (policy.runs.card)")
    return passed("of the data as it is")
