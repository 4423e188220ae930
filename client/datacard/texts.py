"""The texts of a card: how long they are, and which say the same."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from client.datacard.facts import QUANTILES, Cell, Lengths, NotMeasured, Repeats
from mumc_model.data.near import plain_form
from mumc_model.data.records import SiteData
from mumc_model.data.schema import CaptionRecord, VqaRecord

NO_PATIENTS = NotMeasured("captions across patients", "the site's unit is the image, so its data knows no patients")
Row = CaptionRecord | VqaRecord
R = TypeVar("R", CaptionRecord, VqaRecord)


def cell_of(rows: Iterable[Row]) -> Cell:
    """How many rows, and of how many units."""
    units = [row.patient_id for row in rows]
    return Cell(count=len(units), units=len(set(units)))


def lengths(data: SiteData) -> tuple[Lengths, ...]:
    """Words of captions, questions and answers."""
    return (
        _lengths("captions", data.captions, [row.caption for row in data.captions]),
        _lengths("questions", data.vqa, [row.question for row in data.vqa]),
        _lengths("answers", data.vqa, [row.answer for row in data.vqa]),
    )


def repeats(data: SiteData, digest_of: Mapping[str, str]) -> Repeats:
    """Captions and questions that are there more than once; `digest_of` tells images apart, by key."""
    captions = _grouped(data.captions, lambda row: plain_form(row.caption))
    asked = _grouped(data.vqa, lambda row: (_image(data, row, digest_of), plain_form(row.question)))
    learnt = {name for name, rows in asked.items() if any(row.split == "train" for row in rows)}
    twice = [row for rows in captions.values() if len(rows) > 1 for row in rows]
    shared = [row for rows in captions.values() if len({row.patient_id for row in rows}) > 1 for row in rows]
    return Repeats(
        captions=cell_of(twice),
        captions_across_patients=NO_PATIENTS if data.unit == "image" else cell_of(shared),
        questions=cell_of(row for rows in asked.values() if len(rows) > 1 for row in rows),
        test_in_train=cell_of(row for name in learnt for row in asked[name] if row.split == "test"),
    )


def shared_captions(data: SiteData, theirs: Iterable[str]) -> Cell:
    """Captions of the site that another set has too."""
    known = {plain_form(text) for text in theirs}
    return cell_of(row for row in data.captions if plain_form(row.caption) in known)


def _grouped(rows: Iterable[R], name: Callable[[R], Hashable]) -> dict[Hashable, list[R]]:
    found: dict[Hashable, list[R]] = defaultdict(list)
    for row in rows:
        found[name(row)].append(row)
    return found


def _image(data: SiteData, row: Row, digest_of: Mapping[str, str]) -> str:
    key = data.key(row)
    return digest_of.get(key, key)


def _lengths(of: str, rows: Sequence[Row], texts: Sequence[str]) -> Lengths:
    counts = [len(text.split()) for text in texts]
    words = np.quantile(counts, QUANTILES, method="inverted_cdf") if counts else ()
    return Lengths(of=of, texts=cell_of(rows), words=tuple(int(length) for length in words))
