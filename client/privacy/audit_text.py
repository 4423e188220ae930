"""An audit in plain words, for a privacy officer."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from client.privacy.audit import AuditResult, Check

MEANING = {
    "one_step.change": (
        "how far one patient moves a step",
        "further than the clipping norm allows: clipping is too loose, a patient counts twice, or the sum is divided "
        "by less than the declared batch",
        "less far than declared: privacy holds, but training loses what patients could give",
    ),
    "one_step.noise": (
        "noise of a step",
        "more than declared: privacy holds, but accuracy is lost for nothing, or the sum is divided by less than the "
        "declared batch",
        "less than declared: privacy is weaker than claimed",
    ),
    "one_step.shape": ("shape of the noise", "not that of a Gaussian, so no claim about it holds", ""),
    "many_steps.effect_size": (
        "effect over many steps",
        "larger than declared: too little noise, patients drawn too often, or clipping too loose",
        "smaller than declared: too much noise, or noise that is not drawn anew for every step",
    ),
    "many_steps.change": (
        "how far one patient moves many steps",
        "further than declared: patients are drawn too often or count too much",
        "less far than declared: patients are drawn too rarely or cut too short",
    ),
    "many_steps.noise": (
        "noise over many steps",
        "more than declared: it is too strong, or the same noise is used again",
        "less than declared: it is too weak, or the noise of one step takes away that of another",
    ),
    "many_steps.correlation": (
        "steps' noise, one to the next",
        "alike: noise is used again, and a difference of two steps shows the patients",
        "opposite: noise of one step takes away that of another",
    ),
    "steps.counted": (
        "steps that are counted",
        "more than were taken: the ledger would charge too much",
        "fewer than were taken: after a fault the ledger would charge too little",
    ),
}
"""What a check is about, and what it means if the number is too high or too low."""


_THROUGH = {
    "pretrain": "pre-training: its sampler, clipping ({}), noise and steps",
    "finetune": "fine-tuning: its sampler, clipping ({}), noise and steps",
    "metrics": "release of an accuracy: its mean over a patient's questions, sum and noise",
}


def to_console(result: AuditResult, console: Console) -> None:
    """Print the audit as a table of questions and answers."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for question, answer in rows(result):
        table.add_row(question, answer)
    console.print(table, highlight=False)


def rows(result: AuditResult) -> Iterator[tuple[str, str]]:
    """What an officer asks, and the audit's answer."""
    yield "verdict", _verdict(result)
    yield "what was done", _done(result)
    yield "claimed", f"epsilon {result.claimed_epsilon:.2f} at delta {result.delta:g}, by {result.accountant}"
    yield "measured", _measured(result)
    for check in result.checks:
        yield MEANING[check.name][0], _check(check)
    yield "what this proves", _proves(result)


def _verdict(result: AuditResult) -> str:
    if result.passed:
        return "PASSED: what leaks is what is claimed, as far as this audit can see"
    return "FAILED: do not train on patients with this installation; " + "; ".join(reasons(result))


def reasons(result: AuditResult) -> list[str]:
    """Why the audit failed, in words; none where it passed."""
    found = [f"{MEANING[check.name][0]}: {_off(check)}" for check in result.checks if not check.holds]
    if (least := max(result.lower_bound, result.one_run_lower_bound)) > result.claimed_epsilon:
        found.insert(0, f"epsilon is at least {least:.2f}, and {result.claimed_epsilon:.2f} is claimed")
    return found


def _done(result: AuditResult) -> str:
    return (
        f"{result.canaries:,} made-up patients, half of them in the data by the toss of a coin, through this machine's "
        f"own {_THROUGH[result.trainer].format(result.grad_sample)}; no real patient was read. "
        f"{result.seconds:.0f} s"
    )


def _measured(result: AuditResult) -> str:
    return (
        f"epsilon is at least {result.lower_bound:.2f} at the same delta ({100 * result.confidence:g} % sure); a test "
        f"that assumes nothing about the noise shows at least {result.one_run_lower_bound:.2f} "
        f"({100 * result.one_run_confidence:g} % sure). Neither may be above the claim; close below it is right"
    )


def _check(check: Check) -> str:
    numbers = f"{check.measured:.3f}, expected {check.expected:.3f} within {check.band:.3f}"
    return f"{numbers}: right" if check.holds else f"{numbers}: WRONG, {_off(check)}"


def _off(check: Check) -> str:
    _, high, low = MEANING[check.name]
    return high if check.measured > check.expected or not low else low


def _proves(result: AuditResult) -> str:
    return (
        "the program keeps to the mechanism that the accountant prices. It says nothing about the number of steps that "
        "a run takes, which the ledger counts, nor about losses that mix patients, which are refused before a run. "
        f"Chance alone fails a sound program about once in {0.5 / (1 - result.confidence):,.0f} audits"
    )
