"""What a privacy officer sees of a ledger: plain values, and the same as tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

from client.privacy.accounting import PLD_NAME, RDP_NAME
from client.privacy.budget import filter_epsilon
from client.privacy.errors import PolicyError
from client.privacy.event import ADJACENCY
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import Reservation
from protocol.signing import fingerprint

BUDGET = ("cap", "spent", "spent_and_reserved", "remaining")
CHARGE_HEADS = ("run", "round", "for", "sample rate", "noise", "planned", "done", "state", "epsilon")


def summary(ledger: Ledger) -> dict[str, Any]:
    """Everything that is shown, as plain values. Numbers that need a policy are left out where none is in force."""
    shown: dict[str, Any] = {
        "rows": ledger.head.count,
        "head": ledger.head.hash,
        "key": ledger.public_key,
        "officer_key": ledger.officer,
        "excluded": ledger.excluded_count,
        "charges": [_charge(found) for found in ledger.reservations],
    }
    try:
        policy = ledger.policy()
    except PolicyError as error:
        return shown | {"policy": None, "policy_problem": str(error)}
    spent = filter_epsilon(ledger.spent(), policy.delta, ledger.order)
    return shown | {
        "policy": policy.to_dict(),
        "adjacency": ADJACENCY,
        "order": ledger.order,
        "epsilon": {
            "cap": policy.epsilon,
            "spent": spent,
            "spent_and_reserved": ledger.epsilon(),
            "remaining": ledger.remaining(),
            "accountant": RDP_NAME,
        },
        "epsilon_if_fixed_beforehand": {"spent_and_reserved": ledger.epsilon("pld"), "accountant": PLD_NAME},
    }


def to_console(shown: dict[str, Any], console: Console) -> None:
    """Print the budget, then every charge."""
    _print_budget(shown, console)
    table = Table(*CHARGE_HEADS, box=None)
    for charge in shown["charges"]:
        table.add_row(*charge_cells(charge))
    if shown["charges"]:
        console.print(table)
    console.print(f"verified: {shown['rows']} rows, head {shown['head'][:16]}", highlight=False)


def charge_cells(charge: dict[str, Any]) -> tuple[str, ...]:
    """A charge of the summary, as it stands under `CHARGE_HEADS`."""
    event, done = charge["event"], charge["steps_done"]
    return (
        charge["run"],
        f"{charge['round']}.{charge['attempt']}",
        charge["purpose"],
        f"{event['sample_rate']:.4g}",
        f"{event['noise_multiplier']:.3g}",
        str(event["steps"]),
        "-" if done is None else str(done),
        "reserved" if done is None else "spent",
        f"{charge['epsilon_after']:.3f}",
    )


def budget_lines(shown: dict[str, Any]) -> tuple[str, ...]:
    """For whom the budget of the summary counts, how, and who signed it."""
    policy, epsilon, beside = shown["policy"], shown["epsilon"], shown["epsilon_if_fixed_beforehand"]
    adjacency = shown["adjacency"].replace("_", " ")
    return (
        f"per {policy['unit']}, {adjacency}, delta {policy['delta']:g}, {epsilon['accountant']}",
        f"the same work fixed beforehand: {beside['spent_and_reserved']:.3f} by {beside['accountant']}",
        f"approved by {policy['officer']}, {policy['role']}, {policy['approved'][:10]}, "
        f"key {fingerprint(policy['public_key'])}",
        f"withdrawn: {shown['excluded']}",
    )


def _print_budget(shown: dict[str, Any], console: Console) -> None:
    if shown["policy"] is None:
        console.print(shown["policy_problem"], highlight=False, soft_wrap=True)
        return
    table = Table("", "epsilon", box=None)
    for name in BUDGET:
        table.add_row(name.replace("_", " "), f"{shown['epsilon'][name]:.3f}")
    console.print(table)
    for line in budget_lines(shown):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _charge(found: Reservation) -> dict[str, Any]:
    facts = {"id": found.id, "time": found.time, "steps_done": found.steps_done, "epsilon_after": found.epsilon_after}
    return {**found.charge.to_dict(), **facts}
