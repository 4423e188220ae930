"""The single facts of a privacy report: each with a name that never changes, a value, and the words that are shown."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from client.privacy import report_words as words
from client.privacy.accounting import PLD_NAME, RDP_NAME
from client.privacy.event import ADJACENCY
from client.privacy.ledger import Ledger
from client.privacy.policy import PrivacyPolicy
from protocol.signing import fingerprint

MOST_RUNS = 12
"""Named on the page."""

Values = dict[str, Any]


def cell(name: str, label: str, value: Any, text: str | None = None) -> Values:
    """One fact; its section is what its name begins with."""
    return {"id": name, "label": label, "value": value, "text": str(value) if text is None else text}


def up(value: float) -> str:
    """Three decimals, rounded up, so that the words never promise more than the number."""
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:.3f}"


def down(value: float) -> str:
    """Three decimals, rounded down."""
    return f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"


def percent(share: float) -> str:
    """A tenth of a percent, rounded up."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:.1f} %"


def of_promise(policy: PrivacyPolicy) -> Iterator[Values]:
    """What was approved, by whom, and what exactly it means."""
    largest = 1 / (10 * policy.units)
    yield cell("promise.unit", "what is hidden", policy.unit, _hidden(policy.unit))
    yield cell("promise.epsilon", "epsilon, at most", policy.epsilon, f"{policy.epsilon:g} over the life-time")
    yield cell("promise.delta", "delta", policy.delta, f"{policy.delta:g}. {words.EXPLAINED}")
    yield cell(
        "promise.units", f"{policy.unit}s, a public number", policy.units, f"{policy.units:,}, approved, rounded"
    )
    yield cell("promise.largest_delta", "largest delta allowed", largest, f"{largest:g}, 1 / (10 x {policy.units:,})")
    yield cell("promise.adjacency", "neighbouring data", ADJACENCY, f"one {policy.unit} more or less")
    yield cell("promise.adversary", "against whom", words.ADVERSARY)
    yield cell("promise.model", "model of trust", words.MODEL_OF_TRUST)
    noise = policy.noise_multiplier
    yield cell("promise.least_noise", "least noise", noise, f"{noise:g} clipping norms" if noise else "the cap decides")
    yield cell("promise.expires", "in force until", policy.expires, policy.expires or "another is approved")
    yield cell("promise.officer", "approved by", policy.officer, f"{policy.officer}, {policy.role}")
    yield cell("promise.reason", "because", policy.reason)
    yield cell("promise.approved", "approved on", policy.approved, policy.approved[:10])
    yield cell("promise.key", "officer's key", policy.public_key, fingerprint(policy.public_key))


def of_budget(found: Values, policy: PrivacyPolicy, order: float | None) -> Iterator[Values]:
    """Planned, spent, reserved and left."""
    yield cell("budget.cap", "approved (planned at most)", found["cap"], down(found["cap"]))
    yield cell("budget.spent", "spent", found["spent"], up(found["spent"]))
    yield cell("budget.reserved", "reserved on top of it", found["reserved"], up(found["reserved"]))
    yield cell("budget.spent_and_reserved", "spent and reserved", found["spent_and_reserved"], _sum(found))
    yield cell("budget.remaining", "left", found["remaining"], down(found["remaining"]))
    yield cell("budget.steps_done", "steps taken", found["steps_done"], f"{found['steps_done']:,}")
    yield cell("budget.steps_reserved", "steps reserved", found["steps_reserved"], f"{found['steps_reserved']:,}")
    yield cell("budget.rounds_left", "where it stops", found["rounds_left"], _stops(found["rounds_left"]))
    yield cell("budget.accountant", "counted by", RDP_NAME, f"{RDP_NAME}, at delta {policy.delta:g}")
    fixed = "fixed with the first charge" if order is None else f"{order:g}, fixed with the first charge"
    yield cell("budget.order", "Rényi order of the filter", order, fixed)
    beside = found["if_fixed_beforehand"]
    yield cell(
        "budget.pld", "the same work by PLD", beside, f"{up(beside)} by {PLD_NAME}, had it been fixed beforehand"
    )
    yield cell("budget.why", "why they differ", words.ACCOUNTANTS)


def of_attack(found: Values, unit: str) -> Iterator[Values]:
    """Epsilon in plain words."""
    wrong = percent(found["false_positive_rate"])
    for ending, when in (("", "by now"), ("_at_cap", "with the cap used up")):
        hit, sure = found[f"true_positive_rate{ending}"], found[f"posterior{ending}"]
        test = f"wrong on {wrong} of those who are absent, finds at most {percent(hit)} of those who are present"
        belief = (
            f"who thought it a coin's toss whether a {unit} is in, becomes at most {percent(sure)} sure (but for delta)"
        )
        yield cell(f"words.true_positive_rate{ending}", f"the best test, {when}", hit, f"The best test, {test}")
        yield cell(f"words.posterior{ending}", f"a belief of 50 %, {when}", sure, f"An attacker {belief}")
    nothing = f"{wrong} found and 50.0 % sure: what an attacker has who sees nothing at all"
    yield cell("words.nothing", "to compare with", 0.0, nothing)


def of_mechanism(charges: list[Values]) -> Iterator[Values]:
    """How a step is made private, and with which numbers."""
    yield cell("mechanism.name", "a step", "poisson_sampled_gaussian", words.MECHANISM)
    for name, label in (
        ("sample_rate", "drawn with probability (q)"),
        ("noise_multiplier", "noise, in clipping norms (sigma)"),
        ("clipping_norm", "clipping norm (C)"),
        ("expected_batch", "expected batch, public"),
    ):
        values = sorted({charge[name] for charge in charges})
        yield cell(f"mechanism.{name}", label, values, ", ".join(f"{value:g}" for value in values) or "nothing charged")


def of_ledger(ledger: Ledger, key: str, charges: list[Values], code: str, versions: Values) -> Iterator[Values]:
    """What vouches for the numbers."""
    yield cell("ledger.head", "head of the ledger", ledger.head.hash)
    yield cell("ledger.chain", "chain", "verified", "every row verified: signed, in order, none changed or lost")
    yield cell("ledger.key", "ledger's key", key, fingerprint(key))
    used = sorted({charge["code"] for charge in charges if charge["code"]})
    same = "the same as here" if used == [code] else ", ".join(used) or "nothing charged"
    yield cell("ledger.code", "source of this program (SHA-256)", code)
    yield cell("ledger.charged_by", "source that made the charges", used, same)
    yield cell("ledger.versions", "versions", versions, ", ".join(f"{name} {v}" for name, v in versions.items()))


def of_uncharged(runs: Sequence[str]) -> Iterator[Values]:
    """The runs whose updates carried no noise."""
    few = ", ".join(runs[:MOST_RUNS]) + (f", and {len(runs) - MOST_RUNS:,} more" if len(runs) > MOST_RUNS else "")
    yield cell("ledger.uncharged", "runs without differential privacy", list(runs), few or "none is remembered here")


def of_audit(audit: Values) -> Iterator[Values]:
    """What an audit of the program measured, beside what the accountant claims for the same work."""
    yield cell("audit.trainer", "audited", audit["trainer"], words.AUDITED[audit["trainer"]])
    yield cell("audit.pass", "verdict", audit["pass"], "passed" if audit["pass"] else "FAILED")
    yield cell("audit.claimed", "claimed", audit["claimed_epsilon"], up(audit["claimed_epsilon"]))
    bounds = audit["lower_bound"], audit["one_run_lower_bound"]
    sure = audit["confidence"], audit["one_run_confidence"]
    for name, label, bound, confidence in zip(
        ("measured", "measured_any_noise"), ("measured, at least", "whatever the noise"), bounds, sure, strict=True
    ):
        yield cell(f"audit.{name}", label, bound, f"{down(bound)} ({100 * confidence:g} % sure)")
    yield cell("audit.delta", "at delta", audit["delta"], f"{audit['delta']:g}")
    effect, expected = audit["effect_size"], audit["effect_size_expected"]
    yield cell("audit.effect_size", "effect over many steps", effect, f"{effect:.3f}, expected {expected:.3f}")
    yield cell("audit.canaries", "made-up patients", audit["canaries"], f"{audit['canaries']:,}, no real one")
    way = audit["grad_sample"]
    yield cell("audit.grad_sample", "way of clipping", way, way or "nothing is clipped")


def _hidden(unit: str) -> str:
    if unit == "patient":
        return "patient: whether any one of them is in the data at all, with every image and text that is theirs"
    return "record: whether one image with its texts is in the data; a patient with several images is hidden less"


def _sum(found: Values) -> str:
    return f"{up(found['spent_and_reserved'])} of {down(found['cap'])}"


def _stops(rounds: int | None) -> str:
    if rounds is None:
        return "no round was charged yet"
    if not rounds:
        return "at once: another round like the last one would be refused"
    return f"after {rounds:,} more round{'s' if rounds > 1 else ''} like the last one; the next one is refused"
