"""What the files of a run's folder say of it: who was in which round, who was not and why, what came of it.

`journal.jsonl` is the truth; `config.json` adds what the run was to be, `result.json` what only a finished run has. No
torch.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.loader import dump
from server.config import RunConfig
from server.errors import OutputError
from server.journal import RoundRecord, read_journal
from server.output import CONFIG, JOURNAL, RESULT
from server.tally import Tally

OFFLINE = "offline"
"""Of a site that a merged round does not name: it was not there to be asked."""
VOID = "void, as too few others answered"
"""Of a site that did what was asked of it, in an attempt that came to nothing."""

NAMED = 8
"""So many lost sites stand in the headline; the tables hold all of them."""

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class History:
    """One run, as its files tell it."""

    run_id: str
    records: Sequence[RoundRecord]
    """Of every round and attempt, in the order in which they ended."""
    config: Values = field(default_factory=dict)
    """The plain values of the run's `RunConfig`; empty where the folder does not say."""
    finished: bool = True
    """Whether the run came to its end."""
    enrolled: Sequence[str] = ()
    """Sites that might have taken part, as far as the files know of others than the records name."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What each site released after the last round."""
    examples: Mapping[str, int] = field(default_factory=dict)
    """How many examples each site reported then."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why a site released nothing then, as a code."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    """Digest of the code that played the run, where the result notes it."""

    @classmethod
    def read(cls, folder: Path, enrolled: Iterable[str] = ()) -> "History":
        """The run in this folder, finished or not; `enrolled` are sites of which its files may not know.

        Raises:
            OutputError: it holds neither a journal nor a result, or one that cannot be read.
        """
        result = _values(folder / RESULT)
        if result is None and not (folder / JOURNAL).is_file():
            raise OutputError(f"{folder} holds neither {JOURNAL} nor {RESULT}; give the output folder of a run")
        records = read_journal(folder / JOURNAL) if (folder / JOURNAL).is_file() else []
        if result is None:
            return cls(
                run_id=records[0].run_id if records else folder.name,
                records=records,
                config=_values(folder / CONFIG) or {},
                finished=False,
                enrolled=tuple(sorted(enrolled)),
            )
        try:
            return cls._of_result(result, records, enrolled)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutputError(f"{folder / RESULT} lacks what a result holds ({error}); it is damaged") from None

    @classmethod
    def of(
        cls, config: RunConfig, run_id: str, records: Sequence[RoundRecord], tally: Tally, enrolled: Iterable[str] = ()
    ) -> "History":
        """A run that has just ended, before anything of it is read back."""
        return cls(
            run_id=run_id,
            records=records,
            config=dump(config),
            enrolled=tuple(sorted(enrolled)),
            metrics={site: dict(report.metrics) for site, report in tally.reports.items()},
            examples={site: report.examples for site, report in tally.reports.items()},
            refused=dict(tally.refused),
            reasons=dict(tally.reasons),
        )

    @classmethod
    def _of_result(cls, result: Values, records: Sequence[RoundRecord], enrolled: Iterable[str]) -> "History":
        vqa = result["vqa"]
        return cls(
            run_id=str(result["run_id"]),
            records=records,
            config=dict(result["config"]),
            enrolled=tuple(sorted({*enrolled, *result.get("enrolled", [])})),
            metrics={site: dict(told["metrics"]) for site, told in vqa["sites"].items()},
            examples={site: int(told["examples"]) for site, told in vqa["sites"].items()},
            refused=dict(vqa["refused"]),
            reasons=dict(vqa["reasons"]),
            code=str(result.get("code", "")),
        )

    @property
    def planned(self) -> int | None:
        """Rounds that the run was to have; None where that is not known. A sum of counts is one, without training."""
        if not self.config:
            return None
        return 1 if self.final == "statistics" else int(self.config["federation"]["rounds"])

    @property
    def final(self) -> str:
        """What came after the last round, as `federation.final` names it; empty where not known."""
        return str(self.config["federation"]["final"]) if self.config else ""

    @cached_property
    def sites(self) -> list[str]:
        """Every site that is known to belong to the run, by name."""
        named = [name for record in self.records for name in (*record.merged, *record.refused)]
        return sorted({*self.enrolled, *named, *self.metrics, *self.refused})

    @cached_property
    def merged(self) -> list[RoundRecord]:
        """The record of each merged round, by round; of one that was played again, the last."""
        last = {record.round: record for record in self.records if record.sites_merged}
        return [last[round] for round in sorted(last)]

    @property
    def void(self) -> list[RoundRecord]:
        """The attempts that came to nothing."""
        return [record for record in self.records if not record.sites_merged]

    @cached_property
    def lost(self) -> dict[str, list[RoundRecord]]:
        """The merged rounds that each site was not in; only sites that missed any."""
        missed = {site: [record for record in self.merged if site not in record.merged] for site in self.sites}
        return {site: records for site, records in missed.items() if records}

    @property
    def strangers(self) -> int:
        """How many sites were expected beyond those whose names are known."""
        return max(0, max((record.sites_expected for record in self.records), default=0) - len(self.sites))

    @property
    def unheard(self) -> dict[str, str]:
        """Sites that released nothing after the last round though asked to, and why."""
        if not self.finished or self.final == "none" or not (self.metrics or self.refused):
            return {}
        return {site: self.refused.get(site, OFFLINE) for site in self.sites if site not in self.metrics}

    @property
    def whole(self) -> bool:
        """Whether every round was merged at once with every site, and every site reported at the end."""
        missing = self.lost or self.void or self.strangers or self.unheard
        return self.finished and len(self.merged) == self.planned and not missing


def _values(path: Path) -> Values | None:
    """The plain values of a file; None where there is none.

    Raises:
        OutputError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{path} cannot be read ({error}); it is damaged or of another version") from None


def code_of(record: RoundRecord, site: str) -> str:
    """Why a site is not in a round's mean, as a code."""
    return record.refused.get(site, OFFLINE if record.sites_merged else VOID)


def numbered(record: RoundRecord) -> str:
    """`7`, or `7.2` for a second attempt."""
    return f"{record.round}.{record.attempt}" if record.attempt > 1 else str(record.round)


def loss_of(record: RoundRecord) -> float | None:
    """The loss that stands for a round."""
    return record.losses.get("total", record.losses.get("loss"))


def headline(history: History) -> list[str]:
    """The run in sentences, what went wrong included; never plain success where a site was lost."""
    return [*_progress(history), *losses(history)]


def _progress(history: History) -> list[str]:
    merged, sites, planned = history.merged, history.sites, history.planned
    if planned == 0:
        return [f"No rounds of pre-training; sites: {len(sites)}."]
    thresholds = sorted({record.secagg["threshold"] for record in merged if record.secagg})
    masks = f"under masks, threshold {', '.join(map(str, thresholds))}" if thresholds else "without masks"
    whole = 0 if history.strangers else sum(len(record.merged) == len(sites) for record in merged)
    done = f"{len(merged)} of {planned} rounds were merged" if planned is not None else f"{len(merged)} rounds merged"
    lines = [f"{done}, {masks}; {whole} with all {len(sites) + history.strangers} sites."]
    if not history.finished:
        lines.append("There is no result yet: the run is at work, or it was broken off.")
    return lines


def losses(history: History) -> list[str]:
    """What the run did without, in sentences; none where nothing was lost."""
    lines = []
    if history.lost:
        most = _most_first(history.lost)
        told = [f"{site} ({_times(len(records), 'round')})" for site, records in most[:NAMED]]
        told += [f"and {len(most) - NAMED} others"] if len(most) > NAMED else []
        lines.append(f"Sites were lost: {', '.join(told)}.")
    if history.strangers:
        lines.append(f"{_times(history.strangers, 'expected site')} never came, so that no name is known.")
    if history.void:
        lines.append(f"{_times(len(history.void), 'attempt')} at a round came to nothing.")
    if late := sum(len(record.late) for record in history.merged):
        lines.append(f"{_times(late, 'update')} came after the round it was made in, and counted less.")
    if history.unheard:
        lines.append(f"Nothing came after the last round from {', '.join(history.unheard)}.")
    return lines


def _most_first(lost: Mapping[str, Sequence[RoundRecord]]) -> list[tuple[str, Sequence[RoundRecord]]]:
    return sorted(lost.items(), key=lambda item: (-len(item[1]), item[0]))


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
