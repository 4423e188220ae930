"""What privacy cost in this installation's own past runs, from the `report.json` that each left (docs/report.md).

A report is a file that anyone may have put there: every value is checked, and a report that does not hold is named and
left out. Accuracies are of whoever was in that run, simulated hospitals for the most part, and never of this site.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.privacy.errors import PlanError

RUNS = Path("outputs")
"""Where mumc-sim writes its runs by default."""
FILE_NAME = "report.json"
SCHEMA_VERSION = 1
MOST_BYTES = 1 << 25
MOST_REPORTS = 200
"""The latest ones are read."""
NEAREST = 4
"""Runs shown below the plan's epsilon, and as many above it."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """One private arm of a past run, in the mean over its seeds."""

    run: str
    """Its folder."""
    arm: str
    data: str
    """`synthetic` or `real`."""
    sites: int
    images_a_site: float
    """Captioned images, in the mean."""
    seeds: int
    epsilon: float
    """By PLD, of the whole pre-training."""
    delta: float
    noise_multiplier: float
    accuracy: float
    accuracy_ci95: Interval
    answers: int
    """Behind the accuracy."""
    retrieval_at_5: float | None
    """Share of held-out images whose caption is among the first five; None where it was not measured."""
    retrieval_at_5_seeds: Interval | None
    """Its lowest and highest seed."""
    without_noise: Mapping[str, float]
    """Accuracies of the same run's arms without a budget."""


@dataclass(frozen=True, kw_only=True)
class OwnRuns:
    """All private arms that were found, and the reports that could not be read."""

    found: tuple[OwnRun, ...] = ()
    problems: tuple[str, ...] = ()

    def near(self, epsilon: float) -> tuple[OwnRun, ...]:
        """Those whose epsilon is nearest, in the order of epsilon."""
        ordered = sorted(self.found, key=lambda own: abs(math.log(own.epsilon / epsilon)))
        below = [own for own in ordered if own.epsilon <= epsilon][:NEAREST]
        above = [own for own in ordered if own.epsilon > epsilon][:NEAREST]
        return tuple(sorted(below + above, key=lambda own: (own.epsilon, own.run, own.arm)))

    def to_dict(self, epsilon: float) -> dict[str, Any]:
        """Plain values of those near this epsilon."""
        return {
            "own_runs": [asdict(own) for own in self.near(epsilon)],
            "own_runs_found": len(self.found),
            "own_runs_problems": list(self.problems),
        }


def runs_of(folder: Path | None) -> OwnRuns:
    """Those of the folder that is named, else of the usual one where it is there.

    Raises:
        PlanError: there is no such folder, or none of its reports can be read.
    """
    if folder is None:
        return read_own_runs(RUNS) if RUNS.is_dir() else OwnRuns()
    found = read_own_runs(folder)
    if found.problems and not found.found:
        raise PlanError(f"no report of {folder} can be read; {found.problems[0]}")
    return found


def read_own_runs(folder: Path) -> OwnRuns:
    """The private arms of every report in the folder or in folders of it.

    Raises:
        PlanError: there is no such folder.
    """
    if not folder.is_dir():
        raise PlanError(f"there is no folder {folder}; give the one that mumc-sim writes its runs to (outputs)")
    found: list[OwnRun] = []
    problems = []
    for path in _reports(folder):
        try:
            found += _read(path)
        except ReportError as problem:
            problems.append(f"{path}: {problem}")
    return OwnRuns(found=tuple(found), problems=tuple(problems))


class ReportError(ValueError):
    """A report does not hold what it should; the message says what."""


def _reports(folder: Path) -> Iterable[Path]:
    """Each report once, also where `latest` points to its folder; the oldest first."""
    paths = {path.resolve() for depth in ("", "*/", "*/*/") for path in folder.glob(depth + FILE_NAME)}
    files = [path for path in paths if path.is_file()]
    return sorted(files, key=lambda path: (path.stat().st_mtime, path))[-MOST_REPORTS:]


def _read(path: Path) -> list[OwnRun]:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ReportError(f"it cannot be read ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise ReportError(f"it is larger than {MOST_BYTES >> 20} MiB")
    try:
        report = json.loads(content)
    except (ValueError, RecursionError):
        raise ReportError("it is not JSON; run the simulation again") from None
    if not isinstance(report, dict) or report.get("schema_version") != SCHEMA_VERSION:
        raise ReportError(f"it is not a report of schema version {SCHEMA_VERSION}; run the simulation again")
    return _arms(report, _text(path.parent.name, "the folder's name"))


def _arms(report: Mapping[str, Any], run: str) -> list[OwnRun]:
    arms, facts = _mapping(report, "arms"), _mapping(report, "facts")
    private = [arm for arm in arms if "epsilon" in _mapping(facts, arm, {})]
    if not private:
        return []
    sites = _mapping(report, "sites")
    images = [_number(_mapping(sites, site), "captioned_images", 0, 1e12) for site in sites]
    without = {_text(arm, "an arm's name"): _accuracy(arms, arm)[0] for arm in arms if arm not in private and arms[arm]}
    return [
        OwnRun(
            run=run,
            arm=_text(arm, "an arm's name"),
            data=_text(report.get("data"), "data"),
            sites=len(images),
            images_a_site=sum(images) / max(len(images), 1),
            seeds=len(_sequence(report, "seeds")),
            epsilon=_number(facts[arm], "epsilon", 1e-9, 1e9),
            delta=_number(facts[arm], "delta", 1e-300, 1),
            noise_multiplier=_number(facts[arm], "noise_multiplier", 0, 1e9),
            **_scores(arms, arm),
            **_retrieval(report, arm),
            without_noise=without,
        )
        for arm in private
    ]


def _scores(arms: Mapping[str, Any], arm: str) -> dict[str, Any]:
    mean, interval, answers = _accuracy(arms, arm)
    return {"accuracy": mean, "accuracy_ci95": interval, "answers": answers}


def _accuracy(arms: Mapping[str, Any], arm: str) -> tuple[float, Interval, int]:
    overall = _mapping(_mapping(arms, arm), "overall")
    ends = _sequence(overall, "ci95")
    if len(ends) != 2:
        raise ReportError(f"the interval of {arm!r} has {len(ends)} ends")
    low, high = (_number({"ci95": end}, "ci95", 0, 1) for end in ends)
    return _number(overall, "mean", 0, 1), (low, high), int(_number(overall, "n", 1, 1e12))


def _retrieval(report: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Of the cells, which know each seed's."""
    name = "retrieval_at_5"
    values = [
        _number(cell, "value", 0, 1)
        for cell in _sequence(report, "cells")
        if isinstance(cell, dict) and cell.get("metric") == name and _mapping(cell, "factors").get("arm") == arm
    ]
    if not values:
        return {name: None, f"{name}_seeds": None}
    return {name: sum(values) / len(values), f"{name}_seeds": (min(values), max(values))}


def _mapping(values: Mapping[str, Any], name: str, default: Any = None) -> Mapping[str, Any]:
    found = values.get(name, default)
    if not isinstance(found, dict):
        raise ReportError(f"its {name[:40]!r} is no table of values")
    return found


def _sequence(values: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = values.get(name)
    if not isinstance(found, list):
        raise ReportError(f"its {name[:40]!r} is no list")
    return found


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> float:
    found = values.get(name)
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not low <= found <= high:
        raise ReportError(f"its {name!r} is {str(found)[:40]!r}, not a number from {low:g} to {high:g}")
    return float(found)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 100:
        raise ReportError(f"{name} is not a short line of text")
    return value
