"""What a run leaves to read: who was in which round, who was absent and why, and what each site reached."""

import re
from collections.abc import Iterable, Sequence

from protocol.messages import EPSILON
from server.config import RunConfig
from server.journal import RoundRecord
from server.tally import Tally

SHOWN = ("accuracy", "accuracy_open", "accuracy_closed", "tested", EPSILON)
"""Metrics of fine-tuned models that stand in the table; all of them are in `result.json`."""
OFFLINE = "offline"
VOID = "void, as too few others answered"
"""Of a site that did what was asked of it, in an attempt that came to nothing."""


def report_text(
    config: RunConfig, run_id: str, records: Sequence[RoundRecord], tally: Tally, enrolled: Iterable[str] = ()
) -> str:
    """The run in Markdown.

    Args:
        config: The run.
        run_id: Its name.
        records: Of every round and attempt.
        tally: What came of the fine-tuning.
        enrolled: Names of all sites that might have taken part; those that a record names are added.
    """
    named = [name for record in records for name in (*record.merged, *record.refused)]
    sites = sorted({*enrolled, *named, *tally.reports, *tally.refused})
    merged = [record for record in records if record.sites_merged]
    parts = [f"# {run_id}", "", _summary(config, merged, sites)]
    if records:
        parts += ["", "## Sites", "", *_site_rows(records, merged, sites), "", "## Rounds", "", *_round_rows(records)]
    if tally.reports or tally.refused:
        parts += ["", f"## {_FINAL.get(config.federation.final, 'Afterwards')}", "", *_final_rows(tally, sites)]
    return "\n".join(parts) + "\n"


_FINAL = {"finetune": "Fine-tuned models", "evaluate": "Models evaluated again", "rehearse": "Rehearsal"}


def _summary(config: RunConfig, merged: Sequence[RoundRecord], sites: Sequence[str]) -> str:
    if not config.federation.rounds:
        return f"No rounds of pre-training; sites: {len(sites)}."
    thresholds = sorted({record.secagg["threshold"] for record in merged if record.secagg})
    masks = f"under masks, threshold {', '.join(map(str, thresholds))}" if thresholds else "without masks"
    whole = sum(len(record.merged) == len(sites) for record in merged)
    return (
        f"{len(merged)} of {config.federation.rounds} rounds were merged, {masks}; {whole} with all {len(sites)} sites."
    )


def _site_rows(records: Sequence[RoundRecord], merged: Sequence[RoundRecord], sites: Sequence[str]) -> list[str]:
    rows = ["| site | rounds in the mean | absent |", "|---|---|---|"]
    for site in sites:
        inside = sum(site in record.merged for record in merged)
        absent = [_absence(record, site) for record in records if site not in record.merged]
        rows.append(f"| {site} | {inside} of {len(merged)} | {_cell('; '.join(absent)) or 'never'} |")
    return rows


def _absence(record: RoundRecord, site: str) -> str:
    code = record.refused.get(site, OFFLINE if record.sites_merged else VOID)
    stage = record.secagg.get("absent", {}).get(site, {}).get("stage", "")
    where = f"round {record.round}" + (f", attempt {record.attempt}" if record.attempt > 1 else "")
    why = ": ".join(filter(None, [code, record.reasons.get(site, "")]))
    return f"{where}: {why}" + (f" (stage {stage})" if stage else "")


def _round_rows(records: Sequence[RoundRecord]) -> list[str]:
    rows = ["| round | sites | masks | loss | seconds | MB up | MB down |", "|---|---|---|---|---|---|---|"]
    for record in records:
        loss = record.losses.get("total", record.losses.get("loss"))
        rows.append(
            f"| {record.round}{f'.{record.attempt}' if record.attempt > 1 else ''} "
            f"| {record.sites_merged}/{record.sites_expected}{'' if record.sites_merged else ', void'} "
            f"| {'threshold {}'.format(record.secagg['threshold']) if record.secagg else 'none'} "
            f"| {'-' if loss is None else f'{loss:.3f}'} | {record.seconds:.1f} "
            f"| {record.bytes_up / 1e6:.2f} | {record.bytes_down / 1e6:.2f} |"
        )
    return rows


def _final_rows(tally: Tally, sites: Sequence[str]) -> list[str]:
    having = [name for name in SHOWN if any(name in report.metrics for report in tally.reports.values())]
    rows = [f"| site | {' | '.join(having) or 'metrics'} | |", f"|---|{'---|' * max(1, len(having))}---|"]
    for site in sites:
        report = tally.reports.get(site)
        values = [_number(report.metrics.get(name)) if report else "" for name in having] or [""]
        code = "" if report else tally.refused.get(site, OFFLINE)
        why = ": ".join(filter(None, [code, tally.reasons.get(site, "")]))
        rows.append(f"| {site} | {' | '.join(values)} | {_cell(why)} |")
    return rows


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) and value > 1 else f"{value:.3f}"


def _cell(text: str) -> str:
    """What may stand in a cell of a table, whatever a site has said: no column, link, image or mark-up of its own."""
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
