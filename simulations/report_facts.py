"""What a report says of arms beside their answers: privacy budgets, and retrieval by their encoders."""

from collections.abc import Mapping
from typing import Any

from simulations.report_study import Study

FACT_HEADS = [
    "arm",
    "epsilon (PLD)",
    "epsilon (RDP)",
    "delta",
    "noise",
    "image to caption, among 5",
    "caption to image",
]

Values = Mapping[str, Any]


def facts(study: Study) -> dict[str, dict[str, float]]:
    """Each arm's facts, in the mean over seeds; arms of which nothing is known are left out."""
    found: dict[str, dict[str, float]] = {}
    for arm in dict.fromkeys(own.arm for own in study.facts):
        rows = [own.values for own in study.facts if own.arm == arm and own.values]
        if rows:
            found[arm] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return found


def fact_cells(study: Study, factors: Values) -> list[dict[str, Any]]:
    """Every fact as a cell, seed by seed."""
    return [
        {
            "factors": {**factors, **study.arm_factors.get(own.arm, {}), "arm": own.arm},
            "metric": name,
            "value": value,
            "ci95": None,
            "n": 1,
            "seed": own.seed,
        }
        for own in study.facts
        for name, value in own.values.items()
    ]


_FORMATS = {
    "epsilon": "{:.2f}",
    "epsilon_rdp": "{:.2f}",
    "delta": "{:.0e}",
    "noise_multiplier": "{:.2f}",
    "retrieval_at_5": "{:.1%}",
    "retrieval_at_5_back": "{:.1%}",
}


def fact_rows(report: Values) -> list[list[str]]:
    """One row an arm; a number that it has not is a dash, and one that differs by seed shows its lowest and highest."""
    return [[arm, *(_fact(report, arm, name) for name in _FORMATS)] for arm in report.get("facts", {})]


def _fact(report: Values, arm: str, name: str) -> str:
    if name not in report["facts"][arm]:
        return "-"
    seeds = [c["value"] for c in report["cells"] if c["metric"] == name and c["factors"]["arm"] == arm]
    mean, low, high = map(_FORMATS[name].format, (report["facts"][arm][name], min(seeds), max(seeds)))
    return mean if low == high else f"{mean} (seeds {low} to {high})"
