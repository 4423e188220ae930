"""One answered question as the page shows it: the answer first, then how far it can be believed."""

from client.asking import Answered
from client.ui.look import blank, paragraph, shares
from mumc_model.reply import Reply
from mumc_model.reply_text import agreement

ABOUT_SAME = 0.1
"""Probabilities that differ by no more than this count as about the same."""


def answer_html(answered: Answered) -> str:
    """The answer, or a short list, or that a human is to be asked; its probability, accuracy, limits and log line."""
    found = answered.reply
    return "".join(
        [
            *_headline(found),
            *([paragraph(f"{agreed}.")] if (agreed := agreement(found)) else []),
            paragraph(_accuracy(found)),
            _answers(answered),
            *_without_image(answered),
            *_guarantee(found),
            paragraph(f"This question is line {answered.line} of the site's log.", "faint"),
        ]
    )


def _headline(found: Reply) -> list[str]:
    best, probability = found.answers[0]
    percent = f"{100 * probability:.1f} %"
    if found.outcome == "referral":
        return [
            paragraph("Refer to a human", "large bad"),
            paragraph(f"Why: {found.referral}."),
            paragraph(f"Not to be relied on: the likeliest answer is {best}, with {percent}.", "faint"),
        ]
    if found.outcome == "shortlist":
        return [
            paragraph(f"One of: {', '.join(found.shortlist)}", "large"),
            paragraph(f"The likeliest, {best}, has a calibrated probability of {percent}."),
        ]
    return [paragraph(found.answer, "large"), paragraph(f"Calibrated probability: {percent}")]


def _accuracy(found: Reply) -> str:
    if found.accuracy:
        return f"{found.accuracy}."
    return "How often this site's answers of about this probability are right: not measured."


def _answers(answered: Answered) -> str:
    without = dict(answered.blank.answers)
    compared = nothing_to_compare(answered) == ""
    heads = ["answer", "probability", *(["on a blank image"] if compared else [])]
    rows = [
        (text, [probability, *([without.get(text)] if compared else [])])
        for text, probability in answered.reply.answers
    ]
    return shares("The likeliest answers", heads, rows, "not among the first")


def _without_image(answered: Answered) -> list[str]:
    if gap := nothing_to_compare(answered):
        return [paragraph(gap, "faint")]
    best, probability = answered.blank.answers[0]
    lines = [blank(f"The same question on a blank image: {best}, {100 * probability:.1f} %")]
    if image_hardly_mattered(answered):
        lines.append(
            paragraph(
                "The answer is the same, with about the same probability, when there is no image: the image hardly "
                "mattered, and the answer comes from the words of the question.",
                "bad",
            )
        )
    return lines


def nothing_to_compare(answered: Answered) -> str:
    """Why there is nothing to compare with on a blank image; empty where there is."""
    if answered.blank is answered.reply:
        return "This model writes its answers freely and was not asked about a blank image."
    return ""


def image_hardly_mattered(answered: Answered) -> bool:
    """Whether a blank image gets the same answer with about the same probability."""
    (best, probability), (other, without) = answered.reply.answers[0], answered.blank.answers[0]
    return best == other and abs(probability - without) <= ABOUT_SAME


def _guarantee(found: Reply) -> list[str]:
    lines = []
    if found.guarantee:
        lines.append(paragraph(found.guarantee, "faint"))
    if found.threshold and found.outcome != "shortlist":
        lines.append(
            paragraph(
                f"Below {100 * found.threshold:.0f} % the model says that none of its answers fits; validation chose "
                "that limit.",
                "faint",
            )
        )
    return lines
