"""What the card says in short: sentences for the terminal and for the head of the page, each with its remedy."""

from collections.abc import Iterator

from client.datacard.facts import Cell, DataCard, NotMeasured, Overlap

ALL = "all"


def in_short(card: DataCard) -> list[str]:
    """A sentence for each thing that a reader must know."""
    return [*_sizes(card), *_faults(card), *_copies(card), *_overlaps(card), *_skew(card)]


def count(cell: Cell | NotMeasured) -> str:
    """`1,234`, or that it was not measured."""
    return str(cell) if isinstance(cell, NotMeasured) else f"{cell.count:,}"


def _sizes(card: DataCard) -> Iterator[str]:
    patients = "" if isinstance(card.patients, NotMeasured) else f" of {card.patients:,} patients"
    yield (
        f"{card.images.count:,} images{patients}, {card.captions.count:,} captions, {card.questions.count:,} questions."
    )


def _faults(card: DataCard) -> Iterator[str]:
    if card.left_out:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in card.left_out.items())
        yield f"Rows that cannot be used: {reasons}; repair them, or import the data again."
    if not isinstance(card.quarantine, NotMeasured):
        waiting = card.quarantine.images.get("waiting", 0), card.quarantine.reports.get("waiting", 0)
        if any(waiting):
            yield (
                f"{waiting[0]:,} images and {waiting[1]:,} reports wait in quarantine; to look at them: "
                "mumc-site quarantine sheet SITE."
            )


def _copies(card: DataCard) -> Iterator[str]:
    if card.near.images.count:
        yield (
            f"{card.near.images.count:,} images have a copy here or nearly, {card.exact.images.count:,} of them byte "
            "for byte."
        )
    across = card.near.across_patients
    if isinstance(across, Cell) and across.count:
        yield f"{across.count:,} images are another patient's too or nearly; privacy is reckoned for each alone."
    for pair, cell in card.near.across_splits.items():
        if cell.count:
            late, early = pair.split(" in ")
            yield (
                f"{cell.count:,} images of the {late} split are also in {early} or nearly; accuracy looks better than "
                "it is until all of a patient is in one split."
            )


def _overlaps(card: DataCard) -> Iterator[str]:
    if isinstance(card.bank, Overlap) and card.bank.near.count:
        yield (
            f"{card.bank.near.count:,} images are in the public bank or nearly; what is public already should not be "
            "charged as a patient's."
        )
    for other in () if isinstance(card.others, NotMeasured) else card.others:
        yield _overlap(other)


def _overlap(other: Overlap) -> str:
    split = "test" if "test" in other.theirs else ALL
    theirs, here = other.theirs.get(split, 0), other.theirs_here.get(split, 0)
    which = f"test images of {other.name}" if split == "test" else f"images of {other.name}"
    found = f"{here:,} of the {theirs:,} {which} are here or nearly"
    if not other.near.count:
        return f"None of {other.name}'s images is here."
    if not here:
        return f"{found}, though {other.near.count:,} images of its other splits are."
    if other.learnt.count:
        return f"{found}: a model that learns from this site has seen them, and must not be judged by them."
    return f"{found}; this site learns from none of them."


def _skew(card: DataCard) -> Iterator[str]:
    for skew in () if isinstance(card.skew, NotMeasured) else card.skew:
        yield f"{skew.of} by {skew.by}: {100 * skew.distance:.0f} % would have to be others to be as in the federation."
