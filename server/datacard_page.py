"""The sites' data cards beside one another: one HTML page on which the skew between hospitals is seen at a look."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mumc_model.data.files import write_atomically
from mumc_model.page import bullets, section, style, table, table_of, whole
from protocol.keyfiles import make_private_folder
from protocol.labels import TABLES
from protocol.public_facts import SPLIT_PAIRS, TEXTS
from protocol.suppression import WITHHELD
from server.datacards import PAGE, Held, held
from server.home import Home

SIZES = ("patients", "images", "captions", "questions", "rows left out", "waiting")
MOST_NAMED = 12
"""Sites that one sentence names."""
CSS = style(
    72,
    """h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; } p { margin: .4rem 0; max-width: 46rem; }
h1 { overflow-wrap: anywhere; } table { font-size: .86rem; margin-bottom: 1rem; }
caption { text-align: left; color: var(--faint); padding-bottom: .2rem; }
th, td { padding: .34rem .7rem .34rem .3rem; white-space: nowrap; } thead th { vertical-align: bottom; }
.none { color: var(--faint); } tr.all th, tr.all td { border-top: 2px solid var(--rule); }
.hid { color: var(--faint); font-style: italic; background: repeating-linear-gradient(45deg, transparent 0 5px,
  var(--rule) 5px 6px); }
@media print { body { max-width: none; padding: 0; } tr { break-inside: avoid; }
  td { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
""",
)
NOTE = (
    "Every site rounds its counts down to tens or more. What is withheld, or fewer than ten, is a count that the site "
    "does not tell because few patients stand behind it or behind its neighbour: it is not zero. Shares are of the "
    "site's own total; the stronger a cell's colour, the larger its share."
)


def write_page(home: Home) -> Path:
    """Write the page anew from the cards that are here; its path.

    Raises:
        FolderError, ConfigurationError: the federation's folder cannot be read.
    """
    make_private_folder(home.data_cards)
    path = home.data_cards / PAGE
    write_atomically(path, to_html(home.config().name, held(home)).encode())
    return path


def to_html(federation: str, found: Sequence[Held]) -> str:
    """The whole page."""
    title = f"Data cards of {federation}"
    top = (
        f'<header><h1>{escape(title)}</h1><p class="faint">{escape(NOTE)}</p>'
        f'<div class="findings" role="region" aria-label="In short">{bullets(list(in_short(found)))}</div></header>\n'
    )
    parts = [
        section("How much each site has", _sizes(found)),
        *(section(_title(name), _heat(name, found)) for name in TABLES),
        section("How long texts are, in words (quartiles)", _lengths(found)),
        section("Images that have a copy at their own site, or nearly", _copies(found)),
        section("Images that are in public sets, or nearly", _overlaps(found)),
    ]
    return whole(title, CSS, f"<main>\n{top}{''.join(parts)}</main>\n")


def in_short(found: Sequence[Held]) -> Iterator[str]:
    """A sentence for each thing that the operator must know."""
    have = [one for one in found if one.card]
    yield f"{len(have)} of {len(found)} enrolled sites have handed over a data card."
    if without := [one.site for one in found if not one.card and not one.fault]:
        yield f"None is here of {_named(without)}: ask for state/card/public.json (mumc-site card SITE --approve)."
    if damaged := [one.site for one in found if one.fault]:
        yield f"Not to be believed is the file of {_named(damaged)}: ask for it again."
    if silent := [one.site for one in have if not _counts(one)]:
        yield f"Under a privacy policy, and therefore without counts: {_named(silent)}."
    for name in TABLES:
        most = [f"{site} {label} ({_percent(share)})" for site, label, share in _largest(name, have)]
        if len(most) > 1:
            yield f"{_title(name)}, most: {_named(most)}."


def shown(value: Any) -> str:
    """A count as a person reads it; what is not told stays as the site wrote it."""
    return f"{value:,}" if type(value) is int else str(value)


def _title(name: str) -> str:
    return name.capitalize()


def _named(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _facts(one: Held) -> Mapping[str, Any]:
    return one.card.card if one.card else {}


def _counts(one: Held) -> Mapping[str, Any]:
    counts: Mapping[str, Any] = _facts(one).get("counts", {})
    return counts


def _whole(name: str, one: Held) -> int:
    """What the cells of this table make up at this site; 0 where that is not told."""
    value = _counts(one).get(name.partition(" by ")[0])
    return value if type(value) is int else 0


def _told(name: str, one: Held) -> dict[str, int]:
    return {label: value for label, value in _facts(one)["tables"][name].items() if value != WITHHELD}


def _largest(name: str, have: Sequence[Held]) -> Iterator[tuple[str, str, float]]:
    """Of each site whose cells are told, the largest, and its share."""
    for one in have:
        if total := _whole(name, one):
            told = _told(name, one)
            label = max(told, key=lambda each: told[each], default="")
            if label and told[label]:
                yield one.site, label, told[label] / total


def _sizes(found: Sequence[Held]) -> str:
    heads = ("", *SIZES, "unit", "counted on", "approved")
    rows = []
    for one in found:
        counts, facts = _counts(one), _facts(one)
        values = [shown(counts.get(name, "unknown" if counts else "")) for name in SIZES]
        if one.card and not counts:
            values[0] = f"{facts['units']:,} units, as its privacy officer says"
        dates = (facts.get("unit", ""), one.card.made, one.card.approved[:10]) if one.card else ("", "", "")
        rows.append((one.site, *values, *dates) if one.card else (one.site, _absent(one), *[""] * (len(heads) - 2)))
    return table(heads, rows)


def _absent(one: Held) -> str:
    return "damaged" if one.fault else "no card"


def _heat(name: str, found: Sequence[Held]) -> str:
    """A row a site and a column a label that any site has; each cell as strong as its share is large."""
    have = [one for one in found if _counts(one)]
    labels = [label for label in TABLES[name] if any(_facts(one)["tables"][name][label] != 0 for one in have)]
    if not labels:
        return ""
    rows = [_heat_row(name, one, labels) for one in found]
    empty = [label for label in TABLES[name] if label not in labels]
    note = f'<p class="faint">At none of them: {escape(", ".join(empty))}.</p>\n' if empty else ""
    return table_of(("", *labels), [*rows, _together(name, have, labels)]) + note


def _heat_row(name: str, one: Held, labels: Sequence[str]) -> str:
    head = f'<tr><th scope="row">{escape(one.site)}</th>'
    if not _counts(one):
        why = "no counts (privacy policy)" if one.card else _absent(one)
        return f'{head}<td class="none" colspan="{len(labels)}">{why}</td></tr>'
    cells, total = _facts(one)["tables"][name], _whole(name, one)
    return head + "".join(_heat_cell(cells[label], total) for label in labels) + "</tr>"


def _heat_cell(value: int | str, total: int) -> str:
    if value == WITHHELD:
        return f'<td class="hid">{WITHHELD}</td>'
    assert isinstance(value, int)
    if not value:
        return '<td class="none">0</td>'
    share = min(1.0, value / total) if total else 0.0
    percent = f" ({_percent(share)})" if total else ""
    return f'<td style="background: rgb(63 131 196 / {0.6 * share:.2f})">{value:,}{percent}</td>'


def _percent(share: float) -> str:
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _together(name: str, have: Sequence[Held], labels: Sequence[str]) -> str:
    """What is told of all sites together: at least that, since rounding and withholding only take away."""
    cells = []
    for label in labels:
        values = [_told(name, one).get(label) for one in have]
        told = sum(value for value in values if value)
        hidden = any(value is None for value in values)
        cells.append(_heat_cell(WITHHELD if hidden and not told else told, 0))
    return f'<tr class="all"><th scope="row">together, at least</th>{"".join(cells)}</tr>'


def _lengths(found: Sequence[Held]) -> str:
    rows = [(one.site, *(_quartiles(_facts(one)["words"][of]) for of in TEXTS)) for one in found if _counts(one)]
    return table(("", *TEXTS), rows)


def _quartiles(words: list[int] | str) -> str:
    return words if isinstance(words, str) else ", ".join(map(str, words))


def _copies(found: Sequence[Held]) -> str:
    names = ("images", "across patients", *SPLIT_PAIRS)
    rows = [(one.site, *(shown(_facts(one)["near copies"][name]) for name in names)) for one in found if _counts(one)]
    return table(("", *names), rows)


def _overlaps(found: Sequence[Held]) -> str:
    names = ("set", "images here", "learnt from", "of its test split")
    rows = [
        (one.site, *(shown(overlap[name]) for name in names))
        for one in found
        for overlap in _facts(one).get("overlaps", ())
    ]
    return table(("", *names), rows)
