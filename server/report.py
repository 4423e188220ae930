"""What a run leaves to read: who was in which round, who was absent and why, and what each site reached."""

import re
from collections.abc import Sequence

from protocol.messages import EPSILON
from server.history import OFFLINE, History, code_of, headline, loss_of, numbered
from server.journal import RoundRecord

SHOWN = ("accuracy", "accuracy_open", "accuracy_closed", "tested", EPSILON)
"""Metrics of fine-tuned models that stand in the table; all of them are in `result.json`."""
FINAL = {
    "finetune": "Fine-tuned models",
    "evaluate": "Models evaluated again",
    "rehearse": "Rehearsal",
    "statistics": "Statistics, told to",
}
"""What the part after the last round is called."""


def to_markdown(history: History) -> str:
    """The run in Markdown."""
    parts = [f"# {history.run_id}", "", *headline(history)]
    if history.records:
        parts += ["", "## Sites", "", *_site_rows(history), "", "## Rounds", "", *_round_rows(history.records)]
    if history.metrics or history.refused:
        parts += ["", f"## {FINAL.get(history.final, 'Afterwards')}", "", *_final_rows(history)]
    return "\n".join(parts) + "\n"


def final_columns(history: History) -> list[str]:
    """The metrics that any site released and that a table shows."""
    return [name for name in SHOWN if any(name in metrics for metrics in history.metrics.values())]


def final_cells(history: History, site: str, columns: Sequence[str]) -> tuple[list[str], str]:
    """A site's metrics, in the order of the columns, and why there are none."""
    metrics = history.metrics.get(site)
    values = [number(metrics.get(name)) if metrics is not None else "" for name in columns]
    code = "" if metrics is not None else history.refused.get(site, OFFLINE)
    return values, ": ".join(filter(None, [code, history.reasons.get(site, "")]))


def absence(record: RoundRecord, site: str) -> str:
    """When and why a site was not in the mean of a round or attempt."""
    stage = record.secagg.get("absent", {}).get(site, {}).get("stage", "")
    where = f"round {record.round}" + (f", attempt {record.attempt}" if record.attempt > 1 else "")
    why = ": ".join(filter(None, [code_of(record, site), record.reasons.get(site, "")]))
    return f"{where}: {why}" + (f" (stage {stage})" if stage else "")


def number(value: float | None) -> str:
    """A metric, short."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) and value > 1 else f"{value:.3f}"


def _site_rows(history: History) -> list[str]:
    rows = ["| site | rounds in the mean | absent |", "|---|---|---|"]
    for site in history.sites:
        inside = sum(site in record.merged for record in history.merged)
        absent = [absence(record, site) for record in history.records if site not in record.merged]
        rows.append(f"| {site} | {inside} of {len(history.merged)} | {_cell('; '.join(absent)) or 'never'} |")
    return rows


def _round_rows(records: Sequence[RoundRecord]) -> list[str]:
    rows = ["| round | sites | masks | loss | seconds | MB up | MB down |", "|---|---|---|---|---|---|---|"]
    for record in records:
        loss = loss_of(record)
        rows.append(
            f"| {numbered(record)} "
            f"| {record.sites_merged}/{record.sites_expected}{'' if record.sites_merged else ', void'} "
            f"| {'threshold {}'.format(record.secagg['threshold']) if record.secagg else 'none'} "
            f"| {'-' if loss is None else f'{loss:.3f}'} | {record.seconds:.1f} "
            f"| {record.bytes_up / 1e6:.2f} | {record.bytes_down / 1e6:.2f} |"
        )
    return rows


def _final_rows(history: History) -> list[str]:
    having = final_columns(history)
    rows = [f"| site | {' | '.join(having) or 'metrics'} | |", f"|---|{'---|' * max(1, len(having))}---|"]
    for site in history.sites:
        values, why = final_cells(history, site, having)
        rows.append(f"| {site} | {' | '.join(values or [''])} | {_cell(why)} |")
    return rows


def _cell(text: str) -> str:
    """What may stand in a cell of a table, whatever a site has said: no column, link, image or mark-up of its own."""
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
