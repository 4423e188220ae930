"""The report as a table: on the terminal, and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulations.report_factors import (
    ABLATION_NOTE,
    CURVE_NOTE,
    ablation_heads,
    ablation_rows,
    curve_heads,
    curve_rows,
)
from simulations.report_facts import FACT_HEADS, fact_rows
from simulations.report_text import (
    MEANINGS,
    by_seed_text,
    duration,
    finding,
    megabytes,
    name_of,
    pair_name,
    percent,
    points_text,
    reading,
    score_text,
)

Values = Mapping[str, Any]

SCORE_COLUMNS = ("overall", "open", "closed", "worst site")
COST_COLUMNS = ("MB up", "MB down", "time")


def score_cells(scores: Values) -> list[str]:
    """Overall, open, closed and the worst site of an arm or a guess."""
    worst = scores["worst_site"]
    return [score_text(scores[key]) for key in ("overall", "open", "closed")] + [f"{score_text(worst)} {worst['site']}"]


def cost_cells(scores: Values) -> list[str]:
    """Bytes moved and time taken by an arm."""
    return [megabytes(scores["bytes_up"]), megabytes(scores["bytes_down"]), duration(scores["wall_s"])]


def print_report(report: Values, console: Console) -> None:
    """Show the arms, the differences and the case on the terminal."""
    title = f"{report['name']}: percent of test questions right, with 95 % intervals"
    table = Table("arm", "overall", "open", "closed", "worst site", "MB", title=title, box=SIMPLE_HEAD)
    table.title_justify, table.padding = "left", (0, 1, 0, 0)
    for arm, scores in report["arms"].items():
        moved = megabytes(scores["bytes_up"] + scores["bytes_down"])
        table.add_row(name_of(arm), *_narrow_cells(scores), moved, end_section=arm == list(report["arms"])[-1])
    for guess, scores in report["baselines"].items():
        table.add_row(name_of(guess), *_narrow_cells(scores), "", style="dim")
    console.print(table)
    for title, note, heads, rows in factor_tables(report):
        console.print(_terminal_table(title, heads, rows))
        console.print(note, highlight=False, style="dim")
    for pair, difference in report["differences"].items():
        console.print(finding(pair, difference), highlight=False)
        if len(difference["by_seed"]) > 1:
            console.print(f"  by seed: {by_seed_text(difference)}", highlight=False, style="dim")
    for note in reading(report)[:3]:
        console.print(note, highlight=False, style="dim")


def _terminal_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*heads, title=title, box=SIMPLE_HEAD)
    table.title_justify, table.padding = "left", (0, 1, 0, 0)
    for row in rows:
        table.add_row(*row)
    return table


def _narrow_cells(scores: Values) -> list[str]:
    """What fits a terminal of 80 columns; the files have every interval."""
    kinds = [percent(scores[key]["mean"]) if scores[key] else "none" for key in ("open", "closed")]
    return [score_text(scores["overall"]), *kinds, score_text(scores["worst_site"])]


def to_markdown(report: Values) -> str:
    """The report as Markdown, tables first."""
    lines = [f"# {report['name']}", "", *(f"- {finding(*item)}" for item in report["differences"].items()), ""]
    lines += ["## Percent of test questions right, with 95 % intervals", ""]
    lines += _rows(["arm", *SCORE_COLUMNS, *COST_COLUMNS], _arm_rows(report))
    for title, note, heads, rows in factor_tables(report):
        lines += ["", f"## {title}", "", note, "", *_rows(heads, rows)]
    lines += ["", "## Paired differences in points", ""]
    lines += _rows(["pair", "difference", "by seed"], _difference_rows(report))
    if fact_rows(report):
        lines += ["", "## Privacy and retrieval", "", *_rows(FACT_HEADS, fact_rows(report))]
    lines += ["", "## By site", "", *_group_table(report, "site", "sites")]
    lines += ["", "## By question type", "", *_group_table(report, "question type", "by_question_type")]
    lines += ["", "## What the sites hold", "", *_site_table(report["sites"])]
    lines += ["", "## How to read it", "", *(f"- {note}" for note in reading(report))]
    arms = [*report["arms"], *report["baselines"]]
    lines += [f"- {name_of(arm).capitalize()}: {MEANINGS[arm]}." for arm in arms if arm in MEANINGS]
    lines += ["", "## Again", "", "    " + report["command"], "", f"It took {duration(report['wall_s'])}.", ""]
    return "\n".join(lines)


def factor_tables(report: Values) -> list[tuple[str, str, list[str], list[list[str]]]]:
    """Title, note, heads and rows of the tables for which the arms have factors."""
    tables = [
        ("What each part is worth", ABLATION_NOTE, ablation_heads(report), ablation_rows(report)),
        ("Few examples", CURVE_NOTE, curve_heads(report), curve_rows(report)),
    ]
    return [table for table in tables if table[-1]]


def _arm_rows(report: Values) -> list[list[str]]:
    arms = [[name_of(arm), *score_cells(s), *cost_cells(s)] for arm, s in report["arms"].items()]
    return arms + [[name_of(guess), *score_cells(s), "", "", ""] for guess, s in report["baselines"].items()]


def _difference_rows(report: Values) -> list[list[str]]:
    return [[pair_name(pair, d), points_text(d), by_seed_text(d)] for pair, d in report["differences"].items()]


def group_rows(report: Values, key: str) -> list[list[str]]:
    """One row a site or question type: its name, then the score of every arm, then what the question alone gives."""
    columns = [*report["arms"].values(), *([report["baselines"]["question_only"]] if report["baselines"] else [])]
    groups = sorted({group for scores in columns for group in scores[key]})
    return [[group, *(score_text(scores[key].get(group)) for scores in columns)] for group in groups]


def group_heads(report: Values) -> list[str]:
    """The heads of `group_rows` after the first."""
    return [*map(name_of, report["arms"]), *(["question only"] if report["baselines"] else [])]


def _group_table(report: Values, label: str, key: str) -> list[str]:
    return _rows([label, *group_heads(report)], group_rows(report, key))


def site_rows(sites: Values) -> list[list[str]]:
    """One row a site: captioned images, training and test questions."""
    keys = ("captioned_images", "train_questions", "test_questions")
    return [[site, *(f"{facts[key]:,.0f}" for key in keys)] for site, facts in sites.items() if facts]


SITE_HEADS = ("site", "captioned images", "training questions", "test questions")


def _site_table(sites: Values) -> list[str]:
    return _rows(SITE_HEADS, site_rows(sites))


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [_line(heads), _line(["---"] * len(heads)), *map(_line, body)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
