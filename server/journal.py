"""One frozen record a round: its `str` is the progress line, its fields are the journal's line. No torch."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from server.errors import OutputError, disk_error

SCHEMA_VERSION = 4


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What happened in one round, or in one attempt at it."""

    run_id: str
    round: int
    attempt: int
    sites_expected: int
    sites_merged: int
    refused: Mapping[str, str]
    """Why each site that was asked is not in the mean, as a stable code by site."""
    examples: int
    """Examples behind the mean."""
    losses: Mapping[str, float]
    """Means over the merged sites, weighted by examples."""
    update_norm: float
    """L2 norm of the mean difference."""
    bytes_up: int
    """From the sites to the server: arrays and texts, without the transport's own overhead."""
    bytes_down: int
    seconds: float
    lr: float
    """The server's learning rate."""
    epsilon: Mapping[str, float] = field(default_factory=dict)
    """Life-time epsilon of each site that trained under differential privacy, at its own delta. The federation's
    statement is the largest, since a patient is at one site; they are never averaged."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each refused site was refused, in words, where the site or the server gave any: one printable line each."""
    merged: Sequence[str] = field(default_factory=list)
    """Names of the sites in the mean."""
    ended: str = ""
    """When the round ended, in ISO form with its offset to UTC."""
    rule: str = "mean"
    """How the updates became one (`merge.rule`)."""
    norms: Mapping[str, float] = field(default_factory=dict)
    """L2 norm of the update of each site that was judged, refused ones too; empty under masks."""
    late: Mapping[str, int] = field(default_factory=dict)
    """Of each site in the mean whose update came after its own round, how many rounds after."""
    secagg: Mapping[str, Any] = field(default_factory=dict)
    """Under masks the session's `sites`, `colluding` and `threshold`, the `survivors` in the sum, whether sites were
    asked to open it (`revealed`), and of each `absent` site the first `stage` that it missed and the `code`; empty in a
    plain round."""

    def __str__(self) -> str:
        """The progress line."""
        loss = self.losses.get("total", self.losses.get("loss"))
        parts = [
            f"round {self.round:3d}",
            f"sites {self.sites_merged}/{self.sites_expected}",
            *([f"masked, threshold {self.secagg['threshold']}"] if self.secagg else []),
            *([f"loss {loss:.3f}"] if loss is not None else []),
            *([f"epsilon {max(self.epsilon.values()):.2f}"] if self.epsilon else []),
            f"{self.seconds:.1f} s",
            *([f"lost {name_lost(self.refused, self.reasons)}"] if self.refused else []),
        ]
        return " | ".join(parts)


class Journal:
    """A file of JSON lines, one a round, each on the disk before `append` returns.

    Raises:
        OutputError: the file holds lines that are none of this version's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[RoundRecord] = []
        if path.is_file():
            _cut_unfinished(path)
            self.records += read_journal(path)

    def of(self, round: int, attempt: int) -> RoundRecord | None:
        """The record of an attempt at a round; None where it has not ended."""
        return next((r for r in self.records if (r.round, r.attempt) == (round, attempt)), None)

    def given_up(self, round: int) -> bool:
        """Whether a round came to nothing after its sites had opened their masks: they take no other attempt at it."""
        return any(r.round == round and not r.sites_merged and r.secagg.get("revealed") for r in self.records)

    def merged(self, site: str, round: int) -> bool:
        """Whether a site's update of a round is in the mean of that round."""
        return any(r.round == round and site in r.merged and site not in r.late for r in self.records)

    def remarks(self) -> dict[str, str]:
        """What each site is told of its part in the last attempt, where its update was not merged."""
        if not self.records:
            return {}
        last = self.records[-1]
        why = {site: ": ".join(filter(None, [code, last.reasons.get(site, "")])) for site, code in last.refused.items()}
        return {site: f"not in round {last.round}, attempt {last.attempt}: {words}" for site, words in why.items()}

    def norms(self, before: int, rounds: int) -> list[float]:
        """Norms of the updates that were merged in the last so many rounds before one, the newest last."""
        merged = [record for record in self.records if record.sites_merged and record.round < before]
        latest = merged[max(0, len(merged) - rounds) :]
        return [record.norms[site] for record in latest for site in record.merged if site in record.norms]

    def append(self, record: RoundRecord) -> None:
        """Add one line.

        Raises:
            OutputError: the disk refuses.
        """
        line = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(record)}, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.records.append(record)


def read_journal(path: Path) -> list[RoundRecord]:
    """The records of a journal; an unfinished last line (a crash while writing) is left out.

    Raises:
        OutputError: there is no journal, or a line is not of this version.
    """
    if not path.is_file():
        raise OutputError(f"there is no journal {path}; give the output folder of a run that finished a round")
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [_record(path, number, line) for number, line in enumerate(lines, 1)]


def name_lost(refused: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """`north, south (code: reason)`, each reason once, for progress lines and errors."""
    sites: dict[str, list[str]] = {}
    for site, code in sorted(refused.items()):
        sites.setdefault(f"{code}: {reasons[site]}" if site in reasons else code, []).append(site)
    return ", ".join(f"{', '.join(names)} ({why})" for why, names in sites.items())


def _cut_unfinished(path: Path) -> None:
    """Take away a last line that a crash has cut off, so that the next one begins where it should."""
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
    except OSError as error:
        raise disk_error(path, error) from error


def _record(path: Path, number: int, line: str) -> RoundRecord:
    try:
        values: dict[str, Any] = json.loads(line)
        version = values.pop("schema_version")
        if version != SCHEMA_VERSION or values.keys() != {f.name for f in fields(RoundRecord)}:
            raise ValueError(f"schema version {version}")
        return RoundRecord(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path}:{number} is not a journal line of schema version {SCHEMA_VERSION} ({error}); "
            "read it with the fedmumc that wrote it"
        ) from error
