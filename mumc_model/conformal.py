"""Short lists of answers that hold the right one at a chosen risk: split-conformal sets over calibrated probabilities.

The score of a question is 1 less the probability of its right answer, infinite where no candidate is right. A short
list holds every candidate whose score would be at most a bound, and the bound is a quantile of validation's scores.
numpy only.

Dimensions: N questions, K candidates, G points of the grid.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mumc_model.errors import CheckpointError, ConfigError

RISK = 0.1
"""Of a short list without the right answer, where nobody chose another."""
GRID = tuple(round(0.05 * point, 2) for point in range(1, 21))
"""The scores at which a curve from elsewhere is known."""
EVEN_WITH_CURVE = 50
"""Questions of its own with which a site's scores weigh as much as a curve from elsewhere."""
DOUBT = 0.05
"""A curve from elsewhere is left out where the site's own scores contradict it at this level."""
TOLD_STEP = 0.05
"""Of the shares of a curve from elsewhere. Each site rounds its shares down to it, and the server their mean again."""
CURVE_QUESTIONS = 600
"""Of which a curve from elsewhere is taken to be; how many it really is of is not told.

Three sites, the fewest of a curve, have so many where each tells its shares from 200 questions on."""
_DIGITS = 6

Floats = npt.NDArray[np.float64]


def scores(probability_NK: npt.ArrayLike, right_NK: npt.ArrayLike) -> Floats:
    """Score N of each question: 1 less the probability of its likeliest right answer, infinite where none is listed.

    Source: the LAC score of Sadinle, Lei and Wasserman, JASA 114 (2019): among sets with a coverage, the smallest.
    """
    right_NK = np.asarray(right_NK, dtype=bool)
    found_N = (np.asarray(probability_NK, dtype=np.float64) * right_NK).max(axis=1)
    return np.where(right_NK.any(axis=1), 1 - found_N, np.inf)


def quantile(score_N: npt.ArrayLike, risk: float) -> float:
    """The ceil((n+1)(1-risk))-th smallest score; infinite where there are too few to tell.

    If the scores and that of a new question are exchangeable, the new one is at most this with a probability of at
    least 1-risk, and of at most 1-risk+1/(n+1) without ties.
    Source: Vovk et al., Algorithmic learning in a random world (2005); Lei et al., JASA 113 (2018), theorem 2.2.
    """
    ordered = np.sort(np.asarray(score_N, dtype=np.float64))
    rank = math.ceil(round((len(ordered) + 1) * (1 - risk), 9))
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def curve_of(score_N: npt.ArrayLike) -> Floats:
    """Share G of the scores that are at most each point of the grid."""
    shares: Floats = (np.asarray(score_N, dtype=np.float64)[:, None] <= np.asarray(GRID)).mean(axis=0)
    return shares


@dataclass(frozen=True, kw_only=True)
class AnswerSets:
    """What validation taught about short lists."""

    scores: tuple[float, ...] = ()
    """Of the validation questions whose answer is listed, ascending."""
    unlisted: int = 0
    """Validation questions that no candidate answers: no short list can hold their answer."""
    curve: tuple[float, ...] = ()
    """Share of the federation's questions of a score up to each point; empty where not known.

    This site's own are among them only where it took part in the run that the curve is from."""

    def __post_init__(self) -> None:
        """Refuse what no validation gives."""
        sound = list(self.scores) == sorted(self.scores) and self.unlisted >= 0
        shares = list(self.curve)
        sound &= len(shares) in (0, len(GRID)) and shares == sorted(shares) and all(0 <= s <= 1 for s in shares)
        if not sound or not all(0 <= score <= 1 for score in self.scores):
            raise CheckpointError("the scores of the short lists are not in order, or no shares; fine-tune again")

    @classmethod
    def of(cls, score_N: npt.ArrayLike, curve: Sequence[float] = ()) -> Self:
        """Those of validation questions with these scores, beside a curve from elsewhere.

        Scores are rounded up, which never makes a list shorter.
        """
        score_N = np.asarray(score_N, dtype=np.float64)
        listed = np.sort(score_N[np.isfinite(score_N)])
        rounded = np.clip(np.ceil(listed * 10**_DIGITS) / 10**_DIGITS, 0, 1)
        return cls(scores=tuple(rounded.tolist()), unlisted=int(np.isinf(score_N).sum()), curve=tuple(curve))

    @property
    def questions(self) -> int:
        """Validation questions of this site."""
        return len(self.scores) + self.unlisted

    @property
    def weight(self) -> float:
        """How much the site's own scores weigh: n/(n+50), and 1 without a curve or where the site contradicts it."""
        if not self.curve or self.contradicts:
            return 1.0
        return self.questions / (self.questions + EVEN_WITH_CURVE)

    @property
    def contradicts(self) -> bool:
        """Whether the site's own scores cannot well come from where the curve's do.

        A share that was rounded down twice stands for all up to two steps above it; the site's own is compared with
        the nearest of these. Beyond that the two may differ by as much as two samples of one distribution do in one of
        twenty cases. Where the curve is of fewer than 600 questions, agreeing sites are taken for contradicting more
        often, and keep to their own scores. Source: Smirnov's limit for two samples, with the constant of Massart
        (1990) for one; Wei and Dudley, Statistics & Probability Letters 82 (2012).
        """
        if not self.curve or not self.questions:
            return False
        own, told = self._own(np.asarray(GRID), self.questions), np.asarray(self.curve)
        furthest = np.maximum(told - own, own - told - 2 * TOLD_STEP).max()
        return bool(furthest > math.sqrt(math.log(2 / DOUBT) / 2 * (1 / self.questions + 1 / CURVE_QUESTIONS)))

    @property
    def least_risk(self) -> float:
        """The smallest risk at which a short list can be promised: that of showing every candidate."""
        return float(1 - self._mixed(np.ones(1))[0])

    def bound(self, risk: float) -> float:
        """The score up to which candidates stand in the short list; infinite where no list can promise this.

        Raises:
            ConfigError: the risk is not between 0 and 1.
        """
        if not 0 < risk < 1:
            raise ConfigError(f"the risk of a short list is {risk:g}; choose it above 0 and below 1, for instance 0.1")
        at = np.unique(np.concatenate([self.scores, GRID if self.weight < 1 else ()]))
        enough = self._mixed(at) >= 1 - risk - 1e-9
        return float(at[enough.argmax()]) if enough.any() else math.inf

    def shortlist(self, probability_K: npt.ArrayLike, risk: float) -> tuple[int, ...]:
        """Places of the candidates that remain possible, the likeliest first, never without the likeliest.

        Empty where no list can promise this.
        """
        bound = self.bound(risk)
        if math.isinf(bound):
            return ()
        likely_K = np.asarray(probability_K, dtype=np.float64)
        places = np.argsort(-likely_K, kind="stable").tolist()
        return tuple(place for place in places if place == places[0] or 1 - likely_K[place] <= bound + 1e-9)

    def promise(self, risk: float) -> str:
        """What a short list at this risk promises, and the limits of that, in words."""
        share, n = f"{100 * (1 - risk):.3g} %", self.questions
        if math.isinf(self.bound(risk)):
            return f"No short list can promise {share}: {self._obstacle(risk)}."
        limits = (
            "That is an average over questions, not a promise for this one or for each kind, and it ends where images "
            "or questions are unlike validation's."
        )
        if self.weight == 1:
            return (
                f"The right answer stands in the short list for at least {share} of questions like this site's {n} "
                f"validation questions. {limits}"
            )
        own = round(100 * self.weight)
        return (
            f"The right answer stands in the short list for at least {share} of questions of which {own} % are like "
            f"this site's {n} validation questions and {100 - own} % like those of the sites together whose scores "
            f"came with the model; where this site is harder than these, its own share is less by at most {100 - own} "
            f"% of that difference. {limits}"
        )

    def _obstacle(self, risk: float) -> str:
        least = f"a list can be made from a risk of {100 * self.least_risk:.2g} % on"
        if self.unlisted:
            missing = f"the answers to {self.unlisted} of {self.questions} validation questions are not in the list"
            return f"{missing}; {least}"
        return f"{self.questions} validation questions are too few; {least}"

    def _mixed(self, at: Floats) -> Floats:
        """Share of questions with a score of at most this; of the site's own n one more counts as missed."""
        own = self._own(at, self.questions + 1)
        if self.weight == 1:
            return own
        place = np.searchsorted(GRID, at + 1e-12, side="right")
        return self.weight * own + (1 - self.weight) * np.concatenate([[0.0], self.curve])[place]

    def _own(self, at: Floats, of: int) -> Floats:
        counts: Floats = np.searchsorted(self.scores, at, side="right") / of
        return counts

    def own_curve(self) -> tuple[float, ...]:
        """Share of this site's own questions whose score is at most each point of the grid."""
        return tuple(self._own(np.asarray(GRID), self.questions).tolist()) if self.questions else ()

    def beside(self, curve: Sequence[float]) -> "AnswerSets":
        """The same beside another curve from elsewhere."""
        return replace(self, curve=tuple(curve))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"scores": list(self.scores), "unlisted": self.unlisted, "curve": list(self.curve)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote.

        Raises:
            CheckpointError: it is nothing of that kind.
        """
        try:
            scores, curve = (tuple(map(float, values[name])) for name in ("scores", "curve"))
            return cls(scores=scores, unlisted=int(values["unlisted"]), curve=curve)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("the scores of the short lists are damaged; fine-tune again") from error
