"""The report as one HTML page that needs nothing else: no script, no font, no image from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from mumc_model.page import figure, section, style, table, table_of, whole
from simulations.report_facts import FACT_HEADS, fact_rows
from simulations.report_table import (
    COST_COLUMNS,
    SCORE_COLUMNS,
    SITE_HEADS,
    cost_cells,
    factor_tables,
    group_heads,
    group_rows,
    score_cells,
    site_rows,
)
from simulations.report_text import MEANINGS, by_seed_text, duration, finding, name_of, pair_name, points_text, reading

Values = Mapping[str, Any]

CAPTIONS = {
    "differences": "Difference of two arms on the same questions, with its 95 % interval. Small ticks are seeds.",
    "sites": "Percent of test questions right, by site and over all sites. Whiskers are 95 % intervals; the dotted "
    "line is what the words of the question alone give.",
    "by_question_type": "Percent right by what is asked for.",
    "losses": "Training losses by round: each arm's mean over its runs, with the single runs behind it. They are "
    "measured on the batches trained on, so they flatter arms that train on few images.",
    "privacy": "Percent right and retrieval by epsilon; dotted lines are arms without differential privacy.",
    "ablation": "Difference of the model without a part from the full one of the same setting, with its 95 % interval. "
    "Small ticks are seeds.",
    "examples": "Percent right by the number of training questions. Whiskers are 95 % intervals over images, small "
    "dots are seeds.",
    "bytes": "Weights moved between the sites and the server, all seeds together.",
}

FIGURES = {"What each part is worth": "ablation", "Few examples": "examples"}
"""The plot beside a table of `factor_tables`."""

LIGHT = {"scratch": "#8c8177", "local": "#c77700", "federated": "#0b62b4", "centralised": "#00875f"}
DARK = {"scratch": "#a79c92", "local": "#f0a132", "federated": "#5aa9f0", "centralised": "#3cc79a"}
RULES = """h2 { font-size: 1.15rem; margin: 2.75rem 0 .6rem; } p { margin: .5rem 0; }
.badge { font-size: .8rem; font-weight: 600; border: 1px solid var(--rule); border-radius: 1rem; padding: .1rem .7rem; }
table { font-size: .84rem; } th, td { padding: .42rem .65rem .42rem 0; white-space: nowrap; }
tr.guess * { color: var(--faint); }
.dot { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%; margin-right: .45rem; }
figure { margin: 1rem 0 2rem; }
.notes { padding-left: 1.1rem; max-width: 50rem; } .notes li { margin: .35rem 0; }
summary { cursor: pointer; font-weight: 600; } pre { background: var(--card); border-radius: .5rem; padding: 1rem;
  overflow-x: auto; font-size: .85rem; line-height: 1.45; }
@media print { body { max-width: none; padding: 0; } details:not([open]) { display: none; }
  figure { break-inside: avoid; } }
"""


def to_html(report: Values, plots: Mapping[str, str]) -> str:
    """The whole page; `plots` are SVG elements by name, as `draw_plots` makes them."""
    arms = {**report["arms"], **report["baselines"]}
    meanings = [f"{name_of(arm).capitalize()}: {MEANINGS[arm]}." for arm in arms if arm in MEANINGS]
    differences = [[pair_name(pair, d), points_text(d), by_seed_text(d)] for pair, d in report["differences"].items()]
    body = [
        _header(report),
        section("Accuracy", _arm_table(report), _figure("sites", plots)),
        *(
            section(title, f'<p class="faint">{escape(note)}</p>', _figure(FIGURES[title], plots), table(heads, rows))
            for title, note, heads, rows in factor_tables(report)
        ),
        section("Differences", _figure("differences", plots), table(["pair", "points", "by seed"], differences))
        if differences
        else "",
        section("Privacy and retrieval", _figure("privacy", plots), table(FACT_HEADS, fact_rows(report)))
        if fact_rows(report)
        else "",
        section("By site", table(["site", *group_heads(report)], group_rows(report, "sites"))),
        section(
            "By question type",
            _figure("by_question_type", plots),
            table(["type", *group_heads(report)], group_rows(report, "by_question_type")),
        ),
        section("Training", _figure("losses", plots), _figure("bytes", plots)),
        section("What the sites hold", table(SITE_HEADS, site_rows(report["sites"]))),
        section("How to read it", _list([*reading(report), *meanings], "notes")),
        section("Configuration", _details("The whole configuration", _yaml(report["config"]))),
    ]
    return whole(f"{report['name']} · fedmumc", style(62, RULES, LIGHT, DARK), *body)


def _header(report: Values) -> str:
    findings = [finding(pair, difference) for pair, difference in report["differences"].items()]
    kind = "synthetic images" if report["data"] == "synthetic" else "real images"
    seeds = ", ".join(map(str, report["seeds"]))
    box = f'<div class="findings">{_list(findings)}</div>' if findings else ""
    return (
        f"<header><h1>{escape(report['name'])}</h1>"
        f'<p><span class="badge">{kind}</span> <span class="faint">{escape(report["case"])} · seeds {seeds} · '
        f"{report['tested']['answers']:,} answers an arm · {duration(report['wall_s'])}</span></p>{box}"
        f"<pre>{escape(report['command'])}</pre></header>\n"
    )


def _arm_table(report: Values) -> str:
    heads = ["arm", *SCORE_COLUMNS, *COST_COLUMNS]
    rows = [_row(arm, [*score_cells(s), *cost_cells(s)], "arm") for arm, s in report["arms"].items()]
    rows += [_row(guess, [*score_cells(s), "", "", ""], "guess") for guess, s in report["baselines"].items()]
    note = '<p class="faint">Percent of test questions right, with 95 % intervals.</p>'
    return note + table_of(heads, rows)


def _row(arm: str, cells: Sequence[str], kind: str) -> str:
    dot = f'<span class="dot" style="background: var(--{escape(arm)}, var(--faint))"></span>' if kind == "arm" else ""
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="{kind}"><th scope="row">{dot}{escape(name_of(arm))}</th>{values}</tr>'


def _figure(name: str, plots: Mapping[str, str]) -> str:
    return figure(plots[name], CAPTIONS[name]) if name in plots else ""


def _list(items: Sequence[str], kind: str = "") -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _details(summary: str, text: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>\n"


def _yaml(config: Values) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
