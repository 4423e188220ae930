"""Tables of arms that are set apart by factors: what each term of the objective is worth, and accuracy by examples.

An arm with the factor `without` is the full model less one term; arms with `examples` are points of learning curves,
one curve for each value of what else sets them apart.
"""

from collections.abc import Mapping
from typing import Any

from simulations.report_text import points_text, score_text

Values = Mapping[str, Any]

FULL = "nothing, the full model"
ABLATION_NOTE = (
    "Accuracy of the full model, then the difference of the model without a part from it, in points. What leaves zero "
    "inside its interval is not shown to matter here."
)
CURVE_NOTE = "Percent of test questions right by the number of training questions, with 95 % intervals."

Curve = tuple[str, str]
"""What came before fine-tuning, and how it was fine-tuned."""


def _factors(report: Values) -> Mapping[str, Values]:
    # Reports from before arms were set apart by factors have none.
    factors: Mapping[str, Values] = report.get("factors", {})
    return factors


def ablated(report: Values) -> dict[str, dict[str, Values]]:
    """By setting and by what is left out: the difference from the full model of the same setting."""
    factors = _factors(report)
    found: dict[str, dict[str, Values]] = {}
    for difference in report["differences"].values():
        # Reports from before `arms` was written have no factors either.
        arm, other = difference.get("arms", ("", ""))
        own = factors.get(arm, {})
        if "without" in own and "without" not in factors.get(other, {}):
            found.setdefault(own["setting"], {})[own["without"]] = difference
    return found


def _full(report: Values, setting: str) -> Values | None:
    """The scores of the full model of a setting."""
    for difference in report["differences"].values():
        arm, other = difference.get("arms", ("", ""))
        own = _factors(report).get(arm, {})
        if "without" in own and own["setting"] == setting and "without" not in _factors(report).get(other, {}):
            overall: Values = report["arms"][other]["overall"]
            return overall
    return None


def ablation_heads(report: Values) -> list[str]:
    """The heads of `ablation_rows`."""
    return ["without", *ablated(report)]


def ablation_rows(report: Values) -> list[list[str]]:
    """The full model, then one row a part: its difference from the full model in every setting."""
    settings = ablated(report)
    if not settings:
        return []
    parts = list(dict.fromkeys(part for by_part in settings.values() for part in by_part))
    rows = [[FULL, *(score_text(_full(report, setting)) for setting in settings)]]
    for part in parts:
        cells = (by_part.get(part) for by_part in settings.values())
        rows.append([part, *(points_text(difference) if difference else "not run" for difference in cells)])
    return rows


def curves(report: Values) -> dict[Curve, dict[int, Values]]:
    """For each curve the scores of its arms by the number of examples, from the fewest on."""
    found: dict[Curve, dict[int, Values]] = {}
    for arm, own in _factors(report).items():
        if "examples" in own:
            found.setdefault((own["setting"], own["tuning"]), {})[int(own["examples"])] = report["arms"][arm]
    return {curve: dict(sorted(points.items())) for curve, points in found.items()}


def curve_heads(report: Values) -> list[str]:
    """The heads of `curve_rows`."""
    return ["pre-training", "fine-tuning", *(f"{count} examples" for count in _counts(report))]


def curve_rows(report: Values) -> list[list[str]]:
    """One row a curve: percent right at every number of examples."""
    counts = _counts(report)
    return [
        [name_of_setting(setting), tuning, *(score_text(points[n]["overall"]) if n in points else "" for n in counts)]
        for (setting, tuning), points in curves(report).items()
    ]


def name_of_setting(setting: str) -> str:
    """Where a curve's weights come from."""
    return {"scratch": "none"}.get(setting, setting)


def _counts(report: Values) -> list[int]:
    return sorted({count for points in curves(report).values() for count in points})
