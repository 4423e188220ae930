"""What the numbers allow to be said, in closed wording: each sentence follows from an interval, or claims nothing."""

from client.board.facts import FEWEST_IMAGES, BoardFacts, Comparison, Gap, Group, NotMeasured, Privacy
from client.board.numbers import bytes_text, energy_text, epsilon_text, gap_text, hours_text, money_text, share_text


def findings(facts: BoardFacts) -> tuple[str, ...]:
    """The page in a few sentences."""
    said = [verdict(facts.comparison)]
    if isinstance(facts.comparison, Comparison):
        said += filter(None, (worst_group(facts.comparison), losers(facts.comparison)))
    return (*said, guess_sentence(facts.guess), privacy_sentence(facts.privacy), effort_sentence(facts))


def verdict(comparison: Comparison | NotMeasured) -> str:
    """Whether the federated model answers better here than the local-only one."""
    if isinstance(comparison, NotMeasured):
        return f"Whether joining made the answers better was not measured: {comparison.why}."
    overall = comparison.overall
    if isinstance(overall.gap, NotMeasured):
        return f"Whether joining made the answers better was not measured: {overall.gap.why}."
    if not overall.believable:
        return (
            f"Whether joining made the answers better cannot be told from test questions about {overall.images} "
            f"images; at least {FEWEST_IMAGES} are needed."
        )
    return _of_gap(overall, overall.gap)


def _of_gap(overall: Group, gap: Gap) -> str:
    if not gap.shown:
        return (
            f"No difference is shown: over {overall.answers:,} answers the federated model is {gap_text(gap)} points "
            "from the local-only one, and the interval holds zero. That does not show that there is none."
        )
    direction = "better" if gap.low > 0 else "worse"
    return (
        f"The federated model answers {direction} than the local-only one: {gap_text(gap)} points of percent over "
        f"{overall.answers:,} answers, and the interval leaves out zero."
    )


def worst_group(comparison: Comparison) -> str:
    """Which group the federated model answers worst; empty where no two can be compared."""
    worst = comparison.worst
    if worst is None:
        return ""
    return (
        f"Worst group with the federated model: {worst.name}, {share_text(worst.federated)} percent right of "
        f"{worst.answers:,} answers. Choosing the worst makes it look worse than it is, by chance alone."
    )


def losers(comparison: Comparison) -> str:
    """Which groups are answered worse than before; empty where nothing can be compared."""
    gaps = [(group, group.gap) for group in comparison.groups if isinstance(group.gap, Gap)]
    if not gaps:
        return ""
    worse = [group.name for group, gap in gaps if gap.high < 0 and group.believable]
    if not worse:
        return "For no group is it shown that joining made its answers worse."
    return (
        f"Answered worse than by the local-only model, by their intervals: {', '.join(worse)}. Of twenty groups "
        "without any difference, about one parts from zero by chance."
    )


def guess_sentence(guess: Gap | NotMeasured) -> str:
    """Whether the image adds anything to the words of the question."""
    if isinstance(guess, NotMeasured):
        return (
            f"Whether the federated model knows more than the words of the question tell was not measured: {guess.why}."
        )
    beside = f"{gap_text(guess)} points from a guess by the words of the question alone, without the image"
    if not guess.shown:
        return f"It is not shown that the federated model gains from looking at the image: it is {beside}."
    return f"The federated model answers {'better' if guess.low > 0 else 'worse'} than without looking: {beside}."


def privacy_sentence(privacy: Privacy) -> str:
    """What was promised to a patient."""
    if privacy.kind == "unbounded":
        return (
            f"No differential privacy was used: nothing bounds what updates could give away about one {privacy.unit}."
        )
    if isinstance(privacy.epsilon, NotMeasured):
        return f"The privacy spent was not measured: {privacy.epsilon.why}."
    cap = "" if isinstance(privacy.cap, NotMeasured) else f" of at most {epsilon_text(privacy.cap)}"
    runs = f"{privacy.uncharged} run{'s' if privacy.uncharged > 1 else ''} here without differential privacy"
    beyond = f"; {runs} {'are' if privacy.uncharged > 1 else 'is'} not covered" if privacy.uncharged else ""
    return f"Privacy spent: epsilon {epsilon_text(privacy.epsilon)}{cap} for each {privacy.unit}{beyond}."


def effort_sentence(facts: BoardFacts) -> str:
    """What it took, in one sentence."""
    effort, costs = facts.effort, facts.costs
    return (
        f"Sent: {bytes_text(effort.bytes_up)}. Machine at work: {hours_text(effort.hours)}. "
        f"Energy: {energy_text(effort.kwh)}. Cost in all: {money_text(costs.total, costs.currency)}."
    )
