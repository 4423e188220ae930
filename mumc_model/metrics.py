"""How good answers are beyond right and wrong: their words, their probabilities, and what refusing would bring.

All are closed forms over columns of one length; tests hold them to torchmetrics. numpy only.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mumc_model.normalise import NORMALISER, normalise_answer

BINS = 15


def token_f1(prediction: str, truth: str, normaliser: str = NORMALISER) -> float:
    """Harmonic mean of precision and recall over the words of both, repeated words counted; SQuAD's F1.

    Source: Rajpurkar et al., arXiv 1606.05250, section 6.1, with our normalisers in place of theirs.
    """
    predicted, true = (normalise_answer(text, normaliser).split() for text in (prediction, truth))
    shared = sum((Counter(predicted) & Counter(true)).values())
    if not predicted or not true:
        return float(predicted == true)
    return 2 * shared / (len(predicted) + len(true))


def bleu_1(prediction: str, truth: str, normaliser: str = NORMALISER) -> float:
    """Share of the prediction's words that the truth has, less where the prediction is too short.

    Source: Papineni et al., BLEU, ACL 2002, with unigrams and one reference.
    """
    predicted, true = (normalise_answer(text, normaliser).split() for text in (prediction, truth))
    if not predicted:
        return float(not true)
    shared = sum((Counter(predicted) & Counter(true)).values())
    brevity = min(1.0, math.exp(1 - len(true) / len(predicted)))
    return brevity * shared / len(predicted)


def calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over equally wide bins, weighted by size.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3.
    """
    return sum(weight * abs(sure - right) for weight, sure, right in reliability(confidence, correct, bins))


def reliability(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS
) -> list[tuple[float, float, float]]:
    """For each bin that is not empty: its share of the answers, their mean confidence and their accuracy."""
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    bin_of = np.minimum((sure * bins).astype(int), bins - 1)
    members = [bin_of == number for number in range(bins)]
    return [(float(own.mean()), float(sure[own].mean()), float(right[own].mean())) for own in members if own.any()]


def brier_score(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Mean squared distance of the given answer's probability from 1 where it is right and from 0 where it is wrong."""
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    return float(((sure - right) ** 2).mean())


def risk_coverage(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[list[float], list[float]]:
    """Coverage and risk: the share of wrong answers when only the surest are given, for every number of them.

    Equally sure answers are given together, so that their order in the file decides nothing.
    """
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    order = np.argsort(-sure, kind="stable")
    stops = np.flatnonzero(np.append(np.diff(sure[order]) != 0, True)) + 1
    wrong = np.cumsum(1 - right[order])[stops - 1]
    return (stops / len(sure)).tolist(), (wrong / stops).tolist()


def area_under_risk(coverage: Sequence[float], risk: Sequence[float]) -> float:
    """Mean risk over all coverages; 0 for a model that is never wrong, the error rate for one that cannot tell.

    Source: Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
    """
    widths = np.diff([0.0, *coverage])
    return float((widths * np.asarray(risk)).sum())
