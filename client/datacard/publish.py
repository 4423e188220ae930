"""What of a card may leave the site: counts over fixed lists, small ones withheld, signed and noted in the log."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.config import read_site_config
from client.datacard.facts import Cell, Copies, DataCard, Lengths, NotMeasured, Overlap
from client.datacard.labels import in_fixed_labels
from client.datacard.stamp import FOLDER, PUBLIC
from client.keys import SiteKeys
from client.log import site_log_file
from client.privacy.policy import PrivacyPolicy, read_policy
from mumc_model.data.files import write_atomically
from protocol.datacard import PublicCard
from protocol.public_facts import ANOTHER, PUBLIC_SETS
from protocol.signing import payload_hash
from protocol.suppression import SMALLEST, is_small, publish_count, publish_table, rounded_down

QUARTILES = slice(2, 5)
"""Of `facts.QUANTILES`: the ends of a range are single records, and stay."""


def public_facts(card: DataCard, policy: PrivacyPolicy | None, smallest: int) -> dict[str, Any]:
    """What would leave. Under a signed privacy policy that is the officer's own public number, and nothing else."""
    if policy is not None:
        return {"unit": policy.unit, "units": policy.units}
    smallest = max(SMALLEST, smallest)
    patients = card.images.units if isinstance(card.patients, int) else None
    return {
        "unit": card.unit,
        "smallest": smallest,
        "counts": {
            **({} if patients is None else {"patients": publish_count(_alone(patients), smallest)}),
            "images": publish_count(card.images, smallest),
            "captions": publish_count(card.captions, smallest),
            "questions": publish_count(card.questions, smallest),
            "rows left out": publish_count(_alone(sum(card.left_out.values())), smallest),
            "waiting": _waiting(card, smallest),
        },
        "tables": {
            f"{table.of} by {table.by}": publish_table(in_fixed_labels(table), smallest) for table in card.tables
        },
        "words": {found.of: _words(found, smallest) for found in card.lengths},
        "near copies": _copies(card.near, smallest),
        "overlaps": [_overlap(found, smallest) for found in _overlaps(card)],
    }


def publish(root: Path, card: DataCard, person: str) -> Path:
    """Sign what may leave, note it in the site's log, and write it; the file to send.

    Raises:
        SigningError: the site has no keys.
        EnrolmentError: what it has pinned of the federation is damaged.
        PolicyError: its privacy policy is not to be believed.
        MessageError: the card is not one that a server takes.
    """
    facts = facts_that_leave(root, card)
    keys = SiteKeys.open(root)
    key, joined = keys.signing(), keys.pinned()
    now, server = datetime.now(UTC).isoformat(), joined.server_key if joined else ""
    paper = PublicCard.sealed(facts, card.site, card.made, now, server, key)
    line = {"kind": "card", "user": person, "leaves": payload_hash(facts), "data": card.data}
    site_log_file(root).append(key, line)
    path = root / FOLDER / PUBLIC
    write_atomically(path, paper.text().encode())
    return path


def facts_that_leave(root: Path, card: DataCard) -> dict[str, Any]:
    """`public_facts` under the rules of the site in this folder.

    Raises:
        PolicyError: its privacy policy is not to be believed.
    """
    limits = read_site_config(root).policy.runs
    return public_facts(card, read_policy(root), limits.smallest_count if limits else SMALLEST)


def _alone(count: int) -> Cell:
    """A count whose records are units of their own."""
    return Cell(count=count, units=count)


def _waiting(card: DataCard, smallest: int) -> int | str:
    if isinstance(card.quarantine, NotMeasured):
        return str(card.quarantine)
    waiting = (found.get("waiting", 0) for found in (card.quarantine.images, card.quarantine.reports))
    return publish_count(_alone(sum(waiting)), smallest)


def _words(found: Lengths, smallest: int) -> list[int] | str:
    """The quartiles of texts that are many enough."""
    return (
        str(publish_count(found.texts, smallest)) if is_small(found.texts, smallest) else list(found.words[QUARTILES])
    )


def _copies(copies: Copies, smallest: int) -> dict[str, int | str]:
    """Counts of copies; exact ones are among the near ones, and what is only the one or the other cannot be told."""
    across = copies.across_patients
    return {
        "images": publish_count(copies.images, smallest),
        "across patients": str(across) if isinstance(across, NotMeasured) else publish_count(across, smallest),
        **{pair: publish_count(cell, smallest) for pair, cell in copies.across_splits.items()},
    }


def _overlaps(card: DataCard) -> list[Overlap]:
    bank = () if isinstance(card.bank, NotMeasured) else (card.bank,)
    return [*bank, *(() if isinstance(card.others, NotMeasured) else card.others)]


def _overlap(found: Overlap, smallest: int) -> dict[str, int | str]:
    """The other set's own size is public; how many of its images are here is a count about this site."""
    here: Mapping[str, int] = found.theirs_here
    return {
        "set": _public_name(found.name),
        "images here": publish_count(found.near, smallest),
        "learnt from": publish_count(found.learnt, smallest),
        "of its test split": rounded_down(here.get("test", 0), smallest)
        if not is_small(found.near, smallest)
        else str(publish_count(found.near, smallest)),
    }


def _public_name(name: str) -> str:
    plain = name.casefold().replace("-", "_")
    return next((known for known in PUBLIC_SETS if plain == known), ANOTHER)
