"""A reply for people on a terminal: the answer, the short list or the referral, each number with what it means."""

from rich.console import Console
from rich.table import Table

from mumc_model.reply import Reply


def show(found: Reply, console: Console, blank: Reply | None = None) -> None:
    """Print a reply, and beside it what the same question gets on a blank image."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    say(headline(found), "bold")
    table = Table("answer", "probability", *(["on a blank image"] if blank else []), box=None, pad_edge=False)
    without = dict(blank.answers) if blank else {}
    for text, probability in found.answers:
        other = [_percent(without[text]) if text in without else "not among the first"] if blank else []
        table.add_row(text, _percent(probability), *other)
    console.print(table)
    if blank:
        say(f"on a blank image it answers: {blank.answers[0][0]}, {_percent(blank.answers[0][1])}")
    if agreed := agreement(found):
        say(agreed)
    if found.accuracy:
        say(f"{found.accuracy}")
    if found.threshold and len(found.shortlist) < 2:
        say(f"below {100 * found.threshold:.0f} % the answer is none of these (chosen on validation)")
    if found.guarantee:
        say(found.guarantee)


def agreement(found: Reply) -> str:
    """How many members of an ensemble agree on the first answer, in a line; empty of a single model."""
    if found.agreement is None:
        return ""
    agreed = round(found.agreement * found.members)
    return f"{agreed} of {found.members} members give {found.answers[0][0]} as their own first answer"


def headline(found: Reply) -> str:
    """The reply in one line."""
    if found.outcome == "referral":
        return f"refer to a human: {found.referral}"
    if found.outcome == "shortlist":
        return f"one of: {', '.join(found.shortlist)}"
    return found.answer


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
