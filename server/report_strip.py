"""Who was in which round, as one picture: a row a site, a column a round or attempt, a letter a reason."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from string import ascii_lowercase, ascii_uppercase

from server.exchange import WORDS
from server.history import OFFLINE, VOID, History, code_of, numbered
from server.journal import RoundRecord

FLOWERS = "flower_"
"""Begins the codes of Flower, which stand in place of a reply."""
WIDTH, CHARACTER, WIDEST = 960.0, 7.2, 44.0
"""Of the whole picture, of a letter of a site's name, and of a column, in the picture's own units."""
TOP = 28.0
CROSS = "&#215;"
"""Stands above an attempt that came to nothing."""
MERGED, LATE, REFUSED, GONE, AWAY, IDLE = "merged", "late", "refused", "gone", "away", "idle"
MEANINGS = {
    MERGED: "in the mean",
    LATE: "in the mean, with an update made so many rounds before",
    REFUSED: "refused, by a check here or by the site itself",
    GONE: "asked, and nothing came",
    AWAY: "offline",
    IDLE: "did its part in an attempt that came to nothing",
}
"""What each kind of place in the picture says."""


@dataclass(frozen=True)
class Place:
    """What a site was in a round."""

    kind: str
    code: str = ""
    """Why it is not in the mean; how many rounds late, where it is."""


def place_of(record: RoundRecord, site: str) -> Place:
    """What a site was in a round or attempt."""
    if record.sites_merged and site in record.merged:
        return Place(LATE, str(record.late[site])) if site in record.late else Place(MERGED)
    code = code_of(record, site)
    if code in (OFFLINE, VOID):
        return Place(AWAY if code == OFFLINE else IDLE, code)
    return Place(GONE if code in WORDS or code.startswith(FLOWERS) else REFUSED, code)


def letters_of(history: History) -> dict[str, str]:
    """A letter for each code, the most frequent first; `*` where the alphabet does not last."""
    places = (place_of(record, site) for record in history.records for site in history.sites)
    counts = Counter(place.code for place in places if place.kind in (REFUSED, GONE))
    codes = sorted(counts, key=lambda code: (-counts[code], code))
    alphabet = ascii_lowercase + ascii_uppercase
    return {code: alphabet[place] if place < len(alphabet) else "*" for place, code in enumerate(codes)}


def draw_strip(history: History) -> str:
    """The picture as one `<svg>` element; empty where nothing was played. The same history gives the same text."""
    records, sites = history.records, history.sites
    if not records or not sites:
        return ""
    left = min(240.0, max(60.0, CHARACTER * max(map(len, sites)) + 10))
    width = min(WIDEST, (WIDTH - left - 8) / len(records))
    height = 18.0 if len(sites) <= 16 else 13.0
    letters = letters_of(history)
    body = [*_columns(records, left, width, height * len(sites))]
    for row, site in enumerate(sites):
        body += _row(records, site, letters, (left, TOP + row * height, width, height))
    body.append(_grid(len(records), len(sites), left, width, height))
    return (
        f'<svg class="strip" viewBox="0 0 {WIDTH:.0f} {TOP + height * len(sites) + 2:.0f}" role="img" '
        f'aria-label="{escape(_summary(history))}">{"".join(body)}</svg>'
    )


def _summary(history: History) -> str:
    return f"{len(history.sites)} sites by {len(history.records)} rounds and attempts; the table below says the same."


def _columns(records: Sequence[RoundRecord], left: float, width: float, height: float) -> Iterator[str]:
    """Numbers above some of the columns, and a mark above each attempt that came to nothing."""
    every = max(1, -(-30 // int(max(width, 1.0))))
    for place, record in enumerate(records):
        if place % every == 0:
            x = left + (place + 0.5) * width
            yield f'<text class="head" x="{x:.1f}" y="{TOP - 14:.0f}">{numbered(record)}</text>'
        if not record.sites_merged:
            yield f'<text class="void" x="{left + (place + 0.5) * width:.1f}" y="{TOP - 3:.0f}">{CROSS}</text>'


def _row(
    records: Sequence[RoundRecord], site: str, letters: dict[str, str], box: tuple[float, float, float, float]
) -> Iterator[str]:
    """A site's places, those alike that follow each other drawn as one."""
    left, top, width, height = box
    yield f'<text class="name" x="{left - 8:.1f}" y="{top + height / 2:.1f}">{escape(site)}</text>'
    for (place, _), group in groupby(
        enumerate(records), key=lambda item: (place_of(item[1], site), item[1].sites_merged > 0)
    ):
        found = list(group)
        x, wide = left + found[0][0] * width, width * len(found)
        yield (
            f'<rect class="{place.kind}" x="{x:.1f}" y="{top + 1:.1f}" width="{wide:.1f}" height="{height - 2:.1f}">'
            f"<title>{escape(_title(site, place, [record for _, record in found]))}</title></rect>"
        )
        if text := _text(place, letters):
            yield f'<text class="code on-{place.kind}" x="{x + wide / 2:.1f}" y="{top + height / 2:.1f}">{text}</text>'


def _text(place: Place, letters: dict[str, str]) -> str:
    return place.code if place.kind == LATE else letters.get(place.code, "")


def _title(site: str, place: Place, records: Sequence[RoundRecord]) -> str:
    first, last = numbered(records[0]), numbered(records[-1])
    where = f"round {first}" if first == last else f"rounds {first} to {last}"
    why = f", {place.code}" if place.kind in (REFUSED, GONE, LATE) else ""
    reasons = {record.reasons[site] for record in records if site in record.reasons}
    return f"{site}, {where}: {MEANINGS[place.kind]}{why}" + (f": {reasons.pop()}" if len(reasons) == 1 else "")


def _grid(columns: int, rows: int, left: float, width: float, height: float) -> str:
    """Fine lines between the columns, where there is room for them."""
    if width < 3:
        return ""
    lines = "".join(f"M{left + n * width:.1f} {TOP:.0f}v{rows * height:.1f}" for n in range(1, columns))
    return f'<path class="grid" d="{lines}"/>' if lines else ""
