"""Accuracies with their intervals, from rows of answers.

Two answers about one image fall or stand together, so the intervals resample images, each with its answers of all the
seeds that were asked about it.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mumc_model.data.protocols import grammar_of
from mumc_model.evaluate import Question, chance, is_correct, majority, question_only
from mumc_model.statistics import Interval, bootstrap_mean, paired_difference
from simulations.report_study import GUESSES, NORMALISER, ArmResult, ReportError, SiteQuestions, Study

Score = dict[str, Any]
"""`mean`, `ci95` and `n` of a share of right answers."""

_QUESTION = ("images", "question_types", "truths")


@dataclass(frozen=True)
class Answers:
    """One arm's answers as columns of one length."""

    values: npt.NDArray[np.float64]
    """1 for right, 0 for wrong; the probability of being right for a guess at random."""
    seeds: npt.NDArray[np.int64]
    sites: npt.NDArray[np.str_]
    images: npt.NDArray[np.str_]
    answer_types: npt.NDArray[np.str_]
    question_types: npt.NDArray[np.str_]
    truths: npt.NDArray[np.str_]
    cluster_columns: tuple[str, ...] = ("seeds", "sites", "images")
    """The columns whose values together name one image."""

    def __len__(self) -> int:
        return len(self.values)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Answers":
        """The answers for which the mask holds."""
        columns: dict[str, Any] = {
            name: column[keep] for name, column in vars(self).items() if isinstance(column, np.ndarray)
        }
        return replace(self, **columns)

    def rows(self, columns: Iterable[str]) -> list[Hashable]:
        """The named columns of every answer, as tuples."""
        return list(zip(*(getattr(self, name).tolist() for name in columns), strict=True))

    def clusters(self) -> list[Hashable]:
        """For each answer the image, which is resampled with all its answers."""
        return self.rows(self.cluster_columns)

    def questions(self) -> list[Hashable]:
        """For each answer what was asked, for checking that two arms were asked the same."""
        return self.rows(("seeds", "sites", *_QUESTION))

    def same_questions_every_seed(self, columns: tuple[str, ...]) -> bool:
        """Whether each seed asked the very same questions, with images named by `columns`."""
        asked = [Counter(self.where(self.seeds == s).rows((*columns, *_QUESTION))) for s in np.unique(self.seeds)]
        return all(questions == asked[0] for questions in asked)


def gather(study: Study) -> dict[str, Answers]:
    """The answers of every arm and, after them, of every guess, sorted by seed and site.

    Raises:
        ReportError: there are no answers, one arm answered a site twice, or two arms were asked different questions.
    """
    if not study.results:
        raise ReportError("there are no answers to report; run at least one arm with fine-tuning on")
    arms = {arm: _columns(_of(arm, study.results)) for arm in dict.fromkeys(r.arm for r in study.results)}
    reference = next(iter(arms.values()))
    for arm, answers in arms.items():
        _refuse_other_questions(arm, answers, reference)
    guesses = {name: _guess(name, study.questions, reference) for name in GUESSES if study.questions}
    columns = _clustering(reference)
    return {name: replace(answers, cluster_columns=columns) for name, answers in (arms | guesses).items()}


def score(answers: Answers, rng: np.random.Generator) -> Score | None:
    """Share of right answers with its 95 % interval; nothing where there are no answers."""
    if not len(answers):
        return None
    return _as_score(bootstrap_mean(answers.values, answers.clusters(), rng), len(answers))


def scores(answers: Answers, rng: np.random.Generator) -> dict[str, Any]:
    """The scores of one arm: overall, open, closed, by site, the worst site, by question type and by seed."""
    kinds = {
        "overall": score(answers, rng),
        "open": score(answers.where(answers.answer_types == "OPEN"), rng),
        "closed": score(answers.where(answers.answer_types == "CLOSED"), rng),
    }
    sites = _scores_by(answers, answers.sites, rng)
    worst = min(sites, key=lambda site: sites[site]["mean"])
    return kinds | {
        "worst_site": sites[worst] | {"site": worst},
        "sites": sites,
        "by_question_type": _scores_by(answers, answers.question_types, rng),
        "by_seed": {
            str(seed): float(answers.values[answers.seeds == seed].mean()) for seed in np.unique(answers.seeds)
        },
    }


def difference(a: Answers, b: Answers, rng: np.random.Generator) -> Score:
    """Accuracy of `a` less that of `b` on the same questions, with its 95 % interval, and by seed and site."""
    gap = a.values - b.values
    interval = paired_difference(a.values, b.values, a.clusters(), rng)
    return {
        "diff": interval.mean,
        "ci95": [interval.low, interval.high],
        "n": len(a),
        "by_seed": _means_by(gap, a.seeds),
        "by_site": _means_by(gap, a.sites),
    }


def cells(
    name: str, answers: Answers, factors: Mapping[str, Any], rng: np.random.Generator
) -> Iterable[dict[str, Any]]:
    """One machine-readable number for each seed and each of: everything, open, closed, and each site."""
    for seed in np.unique(answers.seeds):
        own = answers.where(answers.seeds == seed)
        parts = {"all": own} | {f"site {site}": own.where(own.sites == site) for site in np.unique(own.sites)}
        kinds = {kind.lower(): own.where(own.answer_types == kind) for kind in ("OPEN", "CLOSED")}
        for part, members in (parts | kinds).items():
            if (result := score(members, rng)) is not None:
                site = part.removeprefix("site ") if part.startswith("site ") else "all"
                kind = part if part in kinds else "all"
                yield {
                    "factors": {**factors, "arm": name, "site": site, "answer_type": kind},
                    "metric": "accuracy",
                    "value": result["mean"],
                    "ci95": result["ci95"],
                    "n": result["n"],
                    "seed": int(seed),
                }


def _scores_by(answers: Answers, groups: npt.NDArray[np.str_], rng: np.random.Generator) -> dict[str, Score]:
    found = {str(group): score(answers.where(groups == group), rng) for group in np.unique(groups)}
    return {group: result for group, result in found.items() if result is not None}


def _means_by(values: npt.NDArray[np.float64], groups: npt.NDArray[Any]) -> dict[str, float]:
    return {str(group): float(values[groups == group].mean()) for group in np.unique(groups)}


def _as_score(interval: Interval, n: int) -> Score:
    return {"mean": interval.mean, "ci95": [interval.low, interval.high], "n": n}


def _of(arm: str, results: Sequence[ArmResult]) -> list[ArmResult]:
    own = sorted((r for r in results if r.arm == arm), key=lambda r: (r.seed, r.site))
    keys = [(r.seed, r.site) for r in own]
    if len(set(keys)) != len(keys):
        raise ReportError(f"arm {arm} has two results for one seed and site; give each seed and site once")
    return own


def _columns(results: Sequence[ArmResult]) -> Answers:
    rows = [(result, row) for result in results for row in result.rows]
    return Answers(
        values=np.array([float(row.correct) for _, row in rows], dtype=np.float64),
        seeds=np.array([result.seed for result, _ in rows], dtype=np.int64),
        sites=np.array([result.site for result, _ in rows], dtype=np.str_),
        images=np.array([row.image for _, row in rows], dtype=np.str_),
        answer_types=np.array([row.answer_type for _, row in rows], dtype=np.str_),
        question_types=np.array([row.question_type for _, row in rows], dtype=np.str_),
        truths=np.array([row.truth for _, row in rows], dtype=np.str_),
    )


def _refuse_other_questions(arm: str, answers: Answers, reference: Answers) -> None:
    if not len(answers):
        raise ReportError(f"arm {arm} answered no question; give its sites a test split")
    if answers.questions() != reference.questions():
        raise ReportError(
            f"arm {arm} answered {len(answers)} questions that are not the {len(reference)} of the first arm, in the "
            "same order; compare arms on the same hospitals, seeds and test split"
        )


def _guess(name: str, questions: Sequence[SiteQuestions], reference: Answers) -> Answers:
    """The answers that a baseline gives to the questions the arms were asked."""
    values = []
    for own in sorted(questions, key=lambda q: (q.seed, q.site)):
        asked = (reference.seeds == own.seed) & (reference.sites == own.site)
        if [q.question_type for q in own.test] != reference.question_types[asked].tolist():
            raise ReportError(
                f"the {len(own.test)} test questions given for {own.site} are not the {int(asked.sum())} that the arms "
                "answered there, in the same order; pass the records of its test split as they stand in the file"
            )
        values += _guessed(name, own.train, own.test)
    if len(values) != len(reference):
        raise ReportError(
            f"test questions are given for {len(values)} of {len(reference)} answers; give those of every site"
        )
    return replace(reference, values=np.array(values, dtype=np.float64))


def _guessed(name: str, train: Sequence[Question], test: Sequence[Question]) -> list[float]:
    """For each test question the probability that the guess is right; nothing where nothing is asked."""
    if not test:
        return []
    if name == "chance":
        return chance(test)
    predictions = {"majority": majority, "question_only": question_only}[name](train, test)
    return [
        float(is_correct(p, q.answer, NORMALISER, grammar_of(q.labels))) for p, q in zip(predictions, test, strict=True)
    ]


def _clustering(answers: Answers) -> tuple[str, ...]:
    """The columns that name an image: as few as tell apart the images of all seeds and sites.

    Seeds with the same hospitals share their images site by site; seeds that deal the same images out anew share them
    whichever site they are at; seeds that draw their own hospitals share none, though file names may repeat.
    """
    for columns in (("sites", "images"), ("images",)):
        if answers.same_questions_every_seed(columns):
            return columns
    return ("seeds", "sites", "images")
