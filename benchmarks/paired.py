"""What one evaluation gains over another on the same questions: right answers, Brier score, calibration error.

Both folders are what `mumc-site evaluate --out FOLDER` wrote of one split. A difference is the second less the first,
with its 95 % interval over images, which are drawn anew together for both.

    python benchmarks/paired.py FIRST SECOND [--json]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mumc_model.metrics import calibration_error
from mumc_model.statistics import Interval, paired_difference

RESAMPLES = 2000
Values = np.ndarray[Any, Any]


def read(folder: Path) -> tuple[list[tuple[str, ...]], Values, Values]:
    """Which questions were answered, how sure the answers are, and whether they are right."""
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [tuple(str(row[name]) for name in ("image", "question_type", "answer_type", "truth")) for row in rows]
    return asked, np.array([row["confidence"] for row in rows]), np.array([row["correct"] for row in rows], dtype=float)


def compare(first: Path, second: Path) -> dict[str, Interval]:
    """The three differences, by name; right answers as a share.

    Raises:
        SystemExit: the folders are of different questions.
    """
    (asked, sure_a, right_a), (others, sure_b, right_b) = read(first), read(second)
    if asked != others:
        raise SystemExit(f"{first} and {second} are evaluations of different questions; evaluate one split with both")
    images = [question[0] for question in asked]
    rng = np.random.default_rng(0)
    return {
        "right answers": paired_difference(right_b, right_a, images, rng),
        "Brier score": paired_difference((sure_b - right_b) ** 2, (sure_a - right_a) ** 2, images, rng),
        "calibration error": _calibration(images, (sure_b, right_b), (sure_a, right_a), rng),
    }


def _calibration(
    images: list[str], one: tuple[Values, Values], other: tuple[Values, Values], rng: np.random.Generator
) -> Interval:
    """The error is no mean over questions, so images are drawn by hand."""
    groups = [np.flatnonzero(np.array(images) == image) for image in sorted(set(images))]

    def gap(rows: Values) -> float:
        ours, theirs = (calibration_error(sure[rows], right[rows]) for sure, right in (one, other))
        return ours - theirs

    drawn = [
        gap(np.concatenate([groups[place] for place in rng.integers(0, len(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(gap(np.arange(len(images))), float(low), float(high))


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = compare(given.first, given.second)
    if given.json:
        print(json.dumps({name: vars(interval) for name, interval in found.items()}, indent=1))
        return
    for name, interval in found.items():
        value, low, high = (100 * number for number in (interval.mean, interval.low, interval.high))
        print(f"{name}: {value:+.1f} points ({low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
