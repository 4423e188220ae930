"""The board's facts as a page: which sections, tables and sentences there are."""

from client.board.document import Document, Section, Table
from client.board.facts import BoardFacts, Comparison, Group, NotMeasured, Privacy
from client.board.numbers import (
    bytes_text,
    chance_text,
    count_text,
    energy_text,
    epsilon_text,
    gap_text,
    hours_text,
    minutes_text,
    money_text,
    share_text,
)
from client.board.verdict import findings

RISKS = (
    "No medical device: this is research software, it has no approval, and no patient may be treated by its answers "
    "alone. The people who read a study decide.",
    "What leaves the hospital: differences of the shared weights and a few figures. Images, captions, questions and "
    "answers stay; mumc-site log shows all that left.",
    "Differential privacy, where it is used, bounds what can be learned about one patient from what was sent. It does "
    "not hide what is true of many patients, protect this computer against intruders, or cover runs without it.",
    "Memorisation: a model can remember rare images or wordings that it was trained on, and who holds it can look for "
    "them.",
    "Change: a new scanner, protocol or group of patients can make every figure on this page out of date.",
    "The test questions come from the same place and time as the training data, and say nothing of other places.",
)
EXACT = (
    "The accuracies on this page are exact and were not charged to any privacy budget: the page is for this hospital, "
    "and is not to be sent on."
)
NEVER_MEASURED = (
    "Whether patients or readers fare better: no clinical study was made.",
    "Whether answers are relied upon rightly, and the harm of wrong ones.",
    "Differences between groups of patients (age, sex, origin): the questions do not name them.",
    "Energy and cost at the server, at the other hospitals and in the network.",
)
READING = (
    "Intervals are 95 % intervals that resample images, not single answers; differences are paired by question. They "
    "leave out the luck of training. Where all answers of a group are right, or none, the interval is the exact one "
    "for as many images."
)
HEADS = ("questions", "answers", "images", "local only", "federated", "difference in points")


def to_document(facts: BoardFacts) -> Document:
    """The page of these facts."""
    return Document(
        title=f"Was joining worth it? {facts.name}",
        day=facts.day,
        subtitle=tuple(filter(None, (facts.about, facts.simulated, f"Made on {facts.day}." if facts.day else ""))),
        findings=findings(facts),
        sections=(
            _answers(facts),
            Section(title="Privacy", table=_privacy(facts.privacy)),
            Section(title="What it took and cost", table=_effort(facts)),
            Section(title="Risks and limits", points=RISKS if facts.simulated else (*RISKS, EXACT)),
            Section(title="What was not measured", points=(*_unmeasured(facts), *NEVER_MEASURED)),
        ),
    )


def _answers(facts: BoardFacts) -> Section:
    found = facts.comparison
    if isinstance(found, NotMeasured):
        return Section(title="Answers", sentences=(f"Accuracy: {found} ({found.why}).",))
    groups = (found.overall, *found.answer_types, *found.question_types)
    table = Table(
        caption="Percent of answers to test questions that are right, with 95 % intervals",
        heads=HEADS,
        rows=tuple(_row(group) for group in groups),
    )
    fewest = f"Groups of fewer than {found.smallest} answers are shown together only."
    return Section(title="Answers", figure=figure_text(found), table=table, sentences=(READING, fewest, *facts.notes))


def figure_text(comparison: Comparison) -> str:
    """What the picture shows."""
    overall = comparison.overall
    return (
        f"Percent right by kind of question. All questions: local only {share_text(overall.local)}, federated "
        f"{share_text(overall.federated)}. The table below has every number."
    )


def _row(group: Group) -> tuple[str, ...]:
    scores = (share_text(group.local), share_text(group.federated), gap_text(group.gap))
    return (group.name, count_text(group.answers), count_text(group.images), *scores)


def _privacy(privacy: Privacy) -> Table:
    rows = [("Protected is each", privacy.unit), ("Privacy spent (epsilon)", epsilon_text(privacy.epsilon))]
    if privacy.kind != "unbounded":
        rows += [
            ("Cap that the privacy officer has signed", epsilon_text(privacy.cap)),
            ("Chance that the bound fails (delta)", chance_text(privacy.delta)),
        ]
    rows.append(("Runs here without differential privacy", count_text(privacy.uncharged)))
    return Table(caption="What was promised, and what of it was used", heads=(), rows=tuple(rows))


def _effort(facts: BoardFacts) -> Table:
    effort, costs = facts.effort, facts.costs
    energy = energy_text(effort.kwh) + (f" ({effort.counted})" if effort.counted else "")
    saved = minutes_text(costs.minutes_saved)
    if costs.minutes_by:
        saved += f", entered by the hospital and not measured: {costs.minutes_by}"
    rows = (
        ("Rounds of training taken part in", count_text(effort.rounds)),
        ("Sent to the server", bytes_text(effort.bytes_up)),
        ("Received from the server", bytes_text(effort.bytes_down)),
        ("Hours of the machine at work", hours_text(effort.hours)),
        ("Energy", energy),
        ("Cost of electricity", money_text(costs.electricity, costs.currency)),
        ("Cost of staff", money_text(costs.staff, costs.currency)),
        ("Cost in all", money_text(costs.total, costs.currency)),
        ("Reading minutes saved", saved),
    )
    return Table(caption="Effort, and cost by the hospital's own prices", heads=(), rows=rows)


def _unmeasured(facts: BoardFacts) -> tuple[str, ...]:
    return tuple(f"{gap.what[:1].upper()}{gap.what[1:]}: {gap} ({gap.why})." for gap in facts.unmeasured())
