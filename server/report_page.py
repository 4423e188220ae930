"""The page of a run: one HTML file that needs nothing else, no script, font or image; and both reports of a folder."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from mumc_model.page import figure, section, style, table, whole
from server.checkpoint import write_whole
from server.history import History, code_of, headline, loss_of, numbered
from server.journal import RoundRecord
from server.output import REPORT
from server.report import FINAL, final_cells, final_columns, to_markdown
from server.report_strip import (
    AWAY,
    CROSS,
    GONE,
    IDLE,
    LATE,
    MEANINGS,
    MERGED,
    REFUSED,
    draw_strip,
    letters_of,
    place_of,
)

PAGE = "report.html"
CAPTIONS = {
    "loss": "Mean over the sites in the round, weighted by examples, on their training batches; its parts dashed.",
    "norms": "How far each site's update moves the weights, and the mean of them. Crosses were refused.",
    "cost": "What travelled, and how long it took. All attempts at a round stand together.",
    "epsilon": "Life-time epsilon at each site, at its own delta. The federation's statement is the largest.",
}
ROUND_HEADS = ("round", "ended", "sites", "loss", "update norm", "examples", "MB up", "MB down", "seconds", "")
MANY = 12
"""Tables of more rows than this are folded, where nothing else is said; and so many rounds are named one by one."""
MOST = 60
"""Rows of a table of sites that stand unfolded."""

LIGHT = {
    "merged": "#3f83c4",
    "late": "#9cc3ea",
    "refused": "#d98200",
    "gone": "#b03a3a",
    "away": "#dfe3e6",
    "idle": "#c9bfb4",
    "other": "#6fae93",
    "good": "#00734f",
}
DARK = {
    "merged": "#4c90d0",
    "late": "#2f5b85",
    "refused": "#e0962a",
    "gone": "#cf5b5b",
    "away": "#2b3136",
    "idle": "#57504a",
    "other": "#3f8a6c",
    "good": "#3cc79a",
}
RULES = """h1 { overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; } p { margin: .5rem 0; }
.badge { font-size: .8rem; font-weight: 600; border: 1px solid; border-radius: 1rem; padding: .1rem .7rem; }
.badge.good { color: var(--good); } .badge.bad { color: var(--refused); }
table { font-size: .86rem; } th, td { padding: .36rem .8rem .36rem 0; } td:last-child { overflow-wrap: anywhere; }
th { white-space: nowrap; } figure { margin: 1rem 0 1.6rem; }
.strip text { fill: var(--ink); font-size: 12px; } .strip .name { text-anchor: end; dominant-baseline: central; }
.strip .head { fill: var(--faint); font-size: 11px; text-anchor: middle; }
.strip .void, .key .void { fill: var(--refused); color: var(--refused); text-anchor: middle; }
.strip .code { fill: #fff; font-size: 10px; font-weight: 600; text-anchor: middle; dominant-baseline: central;
  pointer-events: none; } .strip .on-late { fill: var(--ink); }
.strip .grid { stroke: var(--paper); stroke-width: 1; fill: none; pointer-events: none; }
.merged { fill: var(--merged); background: var(--merged); } .late { fill: var(--late); background: var(--late); }
.refused { fill: var(--refused); background: var(--refused); } .gone { fill: var(--gone); background: var(--gone); }
.away { fill: var(--away); background: var(--away); } .idle { fill: var(--idle); background: var(--idle); }
.key { list-style: none; margin: .4rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .15rem 1.2rem;
  font-size: .85rem; } .key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem;
  vertical-align: -.08rem; } .key b { margin-right: .3rem; }
summary { cursor: pointer; font-weight: 600; } pre { background: var(--card); border-radius: .5rem; padding: 1rem;
  overflow-x: auto; font-size: .85rem; line-height: 1.45; }
@media print { body { max-width: none; padding: 0; } figure, tr { break-inside: avoid; }
  rect, i { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


def write_reports(folder: Path, enrolled: Iterable[str] = ()) -> Path:
    """Write `report.md` and `report.html` anew from the folder's journal and result; returns the page.

    Raises:
        OutputError: the folder holds no run, a file of it cannot be read, or the disk refuses.
    """
    from server.report_plots import draw_plots

    history = History.read(folder, enrolled)
    write_whole(folder / REPORT, to_markdown(history).encode())
    write_whole(folder / PAGE, to_html(history, draw_plots(history)).encode())
    return folder / PAGE


def to_html(history: History, plots: Mapping[str, str]) -> str:
    """The whole page; `plots` are SVG elements by name, as `draw_plots` makes them."""
    body = [
        _header(history),
        section("Who was in which round", _strip(history), _absences(history)),
        section("Loss", _figure("loss", plots)),
        section(FINAL.get(history.final, "Afterwards"), _final(history)),
        section("Length of updates", _figure("norms", plots)),
        section("What a round cost", _figure("cost", plots)),
        section("Privacy", _figure("epsilon", plots), _epsilon(history)),
        section("Every round", _rounds(history.records)),
        section("Configuration", _config(history.config)),
    ]
    return whole(f"{history.run_id} · fedmumc", style(62, RULES, LIGHT, DARK), *body)


def _header(history: History) -> str:
    kind, badge = ("good", "complete") if history.whole else ("bad", "finished, with losses")
    if not history.finished:
        badge = "no result yet"
    ended = history.records[-1].ended if history.records else ""
    rules = ", ".join(sorted({record.rule for record in history.records}))
    facts = [f"merged by {rules}" if rules else "", f"last round ended {ended[:16].replace('T', ' ')}" if ended else ""]
    lines = "".join(f"<li>{escape(line)}</li>" for line in headline(history))
    return (
        f"<header><h1>{escape(history.run_id)}</h1>"
        f'<p><span class="badge {kind}">{badge}</span> '
        f'<span class="faint">{escape(" · ".join(filter(None, facts)))}</span></p>'
        f'<div class="findings"><ul>{lines}</ul></div></header>\n'
    )


def _strip(history: History) -> str:
    picture = draw_strip(history)
    if not picture:
        return ""
    kinds = {place_of(record, site).kind for record in history.records for site in history.sites}
    key = [
        f'<li><i class="{kind}"></i>{escape(MEANINGS[kind])}</li>'
        for kind in (MERGED, LATE, REFUSED, GONE, AWAY, IDLE)
        if kind in kinds
    ]
    key += [f"<li><b>{letter}</b>{escape(code)}</li>" for code, letter in letters_of(history).items()]
    if history.void:
        key.append(f'<li><b class="void">{CROSS}</b>an attempt that came to nothing</li>')
    return f'<figure>{picture}<figcaption><ul class="key">{"".join(key)}</ul></figcaption></figure>\n'


def _absences(history: History) -> str:
    """What kept sites out, one row a site, code and reason, with the rounds."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for record in history.records:
        for site in history.sites:
            if place_of(record, site).kind not in (MERGED, LATE, IDLE):
                found[site, code_of(record, site), record.reasons.get(site, "")].append(numbered(record))
    rows = [[site, code, str(len(rounds)), _some(rounds), why] for (site, code, why), rounds in sorted(found.items())]
    return _table(("site", "why it is not in the mean", "times", "rounds", "in words"), rows)


def _some(rounds: Sequence[str]) -> str:
    return ", ".join(rounds) if len(rounds) <= MANY else f"{', '.join(rounds[: MANY - 1])}, ... {rounds[-1]}"


def _final(history: History) -> str:
    if not history.metrics and not history.refused:
        return ""
    columns = final_columns(history)
    rows = []
    for site in history.sites:
        values, why = final_cells(history, site, columns)
        rows.append([site, *values, why])
    return _table(("site", *columns, ""), rows, MOST)


def _epsilon(history: History) -> str:
    spent: dict[str, float] = {}
    for record in history.records:
        for site, value in record.epsilon.items():
            spent[site] = max(value, spent.get(site, 0.0))
    rows = [[site, f"{value:.3f}"] for site, value in sorted(spent.items(), key=lambda item: (-item[1], item[0]))]
    return _table(("site", "epsilon"), rows, MOST)


def _rounds(records: Sequence[RoundRecord]) -> str:
    return _table(ROUND_HEADS, [_round(record) for record in records])


def _round(record: RoundRecord) -> list[str]:
    loss = loss_of(record)
    notes = [
        "" if record.sites_merged else "void",
        f"masked, threshold {record.secagg['threshold']}" if record.secagg else "",
        f"late: {', '.join(sorted(record.late))}" if record.late else "",
    ]
    return [
        numbered(record),
        record.ended[:19].replace("T", " "),
        f"{record.sites_merged}/{record.sites_expected}",
        "-" if loss is None else f"{loss:.3f}",
        f"{record.update_norm:.4g}",
        str(record.examples),
        f"{record.bytes_up / 1e6:.2f}",
        f"{record.bytes_down / 1e6:.2f}",
        f"{record.seconds:.1f}",
        "; ".join(filter(None, notes)),
    ]


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = escape(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    return f"<details><summary>The whole configuration</summary><pre>{text}</pre></details>\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], most: int = MANY) -> str:
    shown = table(heads, rows)
    return shown if len(rows) <= most else f"<details><summary>{len(rows)} rows</summary>{shown}</details>\n"


def _figure(name: str, plots: Mapping[str, str]) -> str:
    return figure(plots[name], CAPTIONS[name]) if name in plots else ""
