"""How far a probability can be believed, and when to answer "none of these": numbers fitted on validation.

Dimensions: N questions, K candidates.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

LEAST_QUESTIONS = 20
"""With fewer validation questions nothing is fitted: probabilities stay as they are and every question is answered."""
TYPE_QUESTIONS = 30
"""With fewer validation questions of its own a type keeps the temperature of all."""
EVEN_WITH_ALL = 50
"""Questions with which a type's own temperature weighs as much as that of all, on the logarithm's scale."""
_LOG_TEMPERATURE = (-4.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What validation taught about a model's probabilities."""

    temperature: float = 1.0
    """Probabilities are sharpened (below 1) or flattened (above) by it."""
    threshold: float = 0.0
    """Below this probability the answer is "none of these"."""
    questions: int = 0
    """Validation questions that it was fitted on; 0 where there were too few."""
    by_type: Mapping[str, float] = field(default_factory=dict)
    """The temperature of each type of question that validation had enough of; others have that of all."""

    def apply(self, probability_NK: Tensor, types: Sequence[str] = ()) -> Tensor:
        """Calibrated probabilities NK, each row summing to 1; `types` names the type of each question, if known."""
        log_NK = probability_NK.double().clamp_min(1e-30).log()
        warmth = [self.by_type.get(kind, self.temperature) for kind in types] or [self.temperature]
        calibrated_NK: Tensor = (log_NK / torch.tensor(warmth, dtype=torch.float64)[:, None]).softmax(dim=1).float()
        return calibrated_NK


def calibrate(
    probability_NK: Tensor, right_NK: Tensor, types: Sequence[str] = (), cost_of_wrong: float = 1.0
) -> Calibration:
    """Temperatures and threshold from validation questions.

    Args:
        probability_NK: Of each candidate, before calibration.
        right_NK: Whether the candidate is the true answer; a row of none is a question whose answer is not listed.
        types: The type of each question, where a type is to have a temperature of its own.
        cost_of_wrong: What a wrong answer costs, where a right one earns 1 and "none of these" nothing.

    The temperature minimises the log-loss of the questions whose answer is listed. Source: Guo et al., On calibration
    of modern neural networks, ICML 2017. The threshold is the one under which validation earns most, so that it also
    counts questions to which no candidate is the answer; among equals the lowest, which answers most.

    A type with at least 30 questions whose answer is listed has a temperature of its own, drawn towards that of all:
    the logarithm is the mean of both, its own with a weight of n/(n+50).
    """
    if len(probability_NK) < LEAST_QUESTIONS:
        return Calibration()
    temperature = _temperature(probability_NK, right_NK)
    by_type = _by_type(probability_NK, right_NK, types, temperature)
    warm = Calibration(temperature=temperature, by_type=by_type)
    confidence_N, best_N = warm.apply(probability_NK, types).max(dim=1)
    correct_N = right_NK.gather(1, best_N[:, None])[:, 0]
    threshold = best_threshold(confidence_N, correct_N, cost_of_wrong)
    return replace(warm, threshold=threshold, questions=len(probability_NK))


def _by_type(probability_NK: Tensor, right_NK: Tensor, types: Sequence[str], temperature: float) -> dict[str, float]:
    listed_N, found = right_NK.any(dim=1), {}
    for kind, count in sorted(
        Counter(k for k, listed in zip(types, listed_N.tolist(), strict=False) if listed).items()
    ):
        if count >= TYPE_QUESTIONS:
            own_N = torch.tensor([other == kind for other in types])
            own, weight = _temperature(probability_NK[own_N], right_NK[own_N]), count / (count + EVEN_WITH_ALL)
            found[kind] = math.exp(weight * math.log(own) + (1 - weight) * math.log(temperature))
    return found


def best_threshold(confidence_N: Tensor, correct_N: Tensor, cost_of_wrong: float = 1.0) -> float:
    """The confidence from which on answering earns most; 0 where answering everything does."""
    order = confidence_N.argsort(descending=True)
    confidence_N = confidence_N[order]
    earned_N = torch.where(correct_N[order], 1.0, -cost_of_wrong).cumsum(0)
    # Equal confidences are answered together, so only the last of them is a place to stop.
    stops_N = torch.ones_like(order, dtype=torch.bool)
    stops_N[:-1] = confidence_N[:-1] > confidence_N[1:]
    earned_N = torch.where(stops_N, earned_N, -torch.inf)
    if earned_N.max() < 0:
        return 1.0
    last = int((earned_N == earned_N.max()).nonzero()[-1])
    return 0.0 if last == len(order) - 1 else float((confidence_N[last] + confidence_N[last + 1]) / 2)


def _temperature(probability_NK: Tensor, right_NK: Tensor) -> float:
    listed_N = right_NK.any(dim=1)
    if not listed_N.any():
        return 1.0
    probability_NK, right_NK = probability_NK[listed_N], right_NK[listed_N]

    def loss(log_temperature: float) -> float:
        calibrated_NK = Calibration(temperature=float(torch.tensor(log_temperature).exp())).apply(probability_NK)
        return float(-(calibrated_NK * right_NK).sum(1).clamp_min(1e-30).log().mean())

    return float(torch.tensor(minimize_scalar(loss, bounds=_LOG_TEMPERATURE, method="bounded").x).exp())
