"""The card as one HTML page for the site, of the same facts as its JSON."""

from collections.abc import Iterator, Mapping
from html import escape

from client.datacard.facts import QUANTILES, Cell, Copies, DataCard, NotMeasured, Overlap, Quarantine, Skew, Table
from client.datacard.words import count, in_short
from mumc_model.page import bullets, section, style, table, whole

CSS = style(
    52,
    """h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } p { margin: .4rem 0; max-width: 46rem; }
h1, li, td, th { overflow-wrap: anywhere; } table { font-size: .88rem; margin-bottom: 1rem; }
th, td { padding: .3rem .9rem .3rem 0; } caption { text-align: left; color: var(--faint); padding-bottom: .2rem; }
""",
)
_HEADS = ("", "count", "units")


def to_html(card: DataCard) -> str:
    """The whole page. It is for the site: labels and small counts are on it as they are."""
    title = f"Data card of {card.site}"
    top = (
        f'<header><h1>{escape(title)}</h1><p class="faint">{card.made}, unit {card.unit}, data {card.data[:16]}. '
        "For the site alone: what may leave is in public.json, once it is approved.</p>"
        f'<div class="findings" role="region" aria-label="In short">{bullets(in_short(card))}</div></header>\n'
    )
    return whole(title, CSS, f"<main>\n{top}{''.join(_sections(card))}</main>\n")


def _sections(card: DataCard) -> Iterator[str]:
    yield section("What there is", table(_HEADS, _sizes(card)), *(_labels(found) for found in card.tables))
    yield section("How long texts are, in words", table(*_lengths(card)))
    near, exact = _copies(card.near), _copies(card.exact)
    rows = [(name, near[name], exact[name]) for name in near]
    yield section("Copies", table(("images", "the same or nearly", "byte for byte"), rows), table(None, _repeats(card)))
    yield section("In other sets", *_others(card))
    yield section("What was left out", *_left_out(card))
    yield section("Beside the federation", *_skews(card.skew))


def _sizes(card: DataCard) -> list[tuple[str, str, str]]:
    named = {"images": card.images, "captions": card.captions, "questions": card.questions}
    patients = str(card.patients) if isinstance(card.patients, NotMeasured) else f"{card.patients:,}"
    return [("patients", patients, patients), *(_row(name, cell) for name, cell in named.items())]


def _row(name: str, cell: Cell) -> tuple[str, str, str]:
    return name, f"{cell.count:,}", f"{cell.units:,}"


def _labels(found: Table) -> str:
    return table(_HEADS, [_row(*item) for item in found.cells.items()], caption=f"{found.of} by {found.by}")


def _lengths(card: DataCard) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    heads = ("", "texts", *("median" if share == 0.5 else f"{100 * share:.0f} %" for share in QUANTILES))
    rows = [(found.of, f"{found.texts.count:,}", *map(str, found.words)) for found in card.lengths if found.words]
    return heads, rows


def _copies(copies: Copies) -> dict[str, str]:
    return {
        "with a copy": count(copies.images),
        "also another patient's": count(copies.across_patients),
        **{pair: count(cell) for pair, cell in copies.across_splits.items()},
    }


def _repeats(card: DataCard) -> list[tuple[str, str]]:
    found = card.repeats
    return [
        ("captions that say the same as another", count(found.captions)),
        ("captions that also another patient has", count(found.captions_across_patients)),
        ("questions asked twice of one image", count(found.questions)),
        ("test questions whose image and wording also serve training", count(found.test_in_train)),
    ]


def _others(card: DataCard) -> Iterator[str]:
    for name, found in (("the public bank", card.bank), ("public test sets", card.others)):
        if isinstance(found, NotMeasured):
            yield _unmeasured(name, found)
        else:
            for one in (found,) if isinstance(found, Overlap) else found:
                yield _overlap(one)


def _overlap(found: Overlap) -> str:
    rows = [
        ("images of this site that are in it or nearly", count(found.near)),
        ("of them byte for byte", count(found.exact)),
        ("of them learnt from", count(found.learnt)),
        ("captions of this site that it has too", count(found.captions)),
    ]
    for split, all_of in found.theirs.items():
        rows.append((f"its images ({split}) that are here", f"{found.theirs_here.get(split, 0):,} of {all_of:,}"))
    return table(None, rows, caption=found.name)


def _left_out(card: DataCard) -> Iterator[str]:
    yield _reasons("rows", card.left_out) or "<p>No row was left out.</p>\n"
    if isinstance(card.quarantine, Quarantine):
        yield _reasons("images of the archive", card.quarantine.images)
        yield _reasons("reports of the archive", card.quarantine.reports)
        yield _reasons("files of the archive that gave nothing", card.quarantine.left_out)
    else:
        yield _unmeasured("quarantine", card.quarantine)


def _reasons(what: str, found: Mapping[str, int]) -> str:
    return table(None, [(reason, f"{number:,}") for reason, number in found.items()], caption=what)


def _skews(found: tuple[Skew, ...] | NotMeasured) -> Iterator[str]:
    if isinstance(found, NotMeasured):
        yield _unmeasured("label skew", found)
        return
    for skew in found:
        labels = dict.fromkeys([*skew.here, *skew.federation])
        rows = [(label, _share(skew.here, label), _share(skew.federation, label)) for label in labels]
        caption = f"{skew.of} by {skew.by}: {100 * skew.distance:.1f} % differ"
        yield table(("", "here", "federation"), rows, caption=caption)


def _share(shares: Mapping[str, float], label: str) -> str:
    return f"{100 * shares.get(label, 0.0):.1f} %"


def _unmeasured(name: str, found: NotMeasured) -> str:
    return f'<p class="faint">{escape(name)}: {found}, as {escape(found.why)}.</p>\n'
