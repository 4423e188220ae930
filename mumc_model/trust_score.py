"""What trusting a model as its validation says would have meant on a split: lists that held the truth, referrals.

Dimensions: N questions, K candidates.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mumc_model.answering import right_candidates
from mumc_model.calibration import Calibration
from mumc_model.conformal import RISK
from mumc_model.data.samples import VqaSamples
from mumc_model.familiarity import LEVEL
from mumc_model.reply import reply
from mumc_model.statistics import bootstrap_mean
from mumc_model.trust import Trust, features
from mumc_model.vqa import VqaModel

Values = dict[str, Any]


def trust_score(
    model: VqaModel,
    texts: Sequence[str],
    calibration: Calibration,
    trust: Trust,
    probability_NK: Tensor,
    samples: VqaSamples,
    *,
    device: torch.device,
    normaliser: str = "mumc",
    risk: float = RISK,
    level: float = LEVEL,
) -> Values | None:
    """Plain values for a scorecard from calibrated probabilities; None where nothing was validated.

    Every question goes the way of a single one that is asked (`Trust.judged`).
    """
    if not trust.known or not len(samples):
        return None
    right_NK = right_candidates(texts, samples, normaliser)
    image_NE, word_NE = features(model, samples, device) if trust.gate else (None, None)
    found: dict[str, list[float]] = {name: [] for name in ("size", "covered", "alone", "listed", "referred", "foreign")}
    for at, (probability_K, right_K) in enumerate(zip(probability_NK, right_NK, strict=True)):
        usual = None
        if trust.gate and image_NE is not None and word_NE is not None:
            usual = trust.gate.judge(image_NE[at : at + 1], word_NE[at : at + 1], level)
        one = reply(texts, probability_K, calibration.threshold, 1)
        places = list(trust.sets.shortlist(probability_K, risk))
        said = trust.judged(one, texts, probability_K, risk=risk, familiarity=usual).outcome
        found["size"].append(len(places))
        found["covered"].append(bool(right_K[places].any()))
        for name, outcome in (("alone", "answer"), ("listed", "shortlist"), ("referred", "referral")):
            found[name].append(said == outcome)
        found["foreign"].append(usual is not None and usual.joint <= usual.level)
    best_N = right_NK.gather(1, probability_NK.argmax(1, keepdim=True))[:, 0].numpy()
    return _summary(
        {name: np.array(column, dtype=float) for name, column in found.items()}, best_N, trust, samples, risk
    )


def _summary(
    found: Mapping[str, Any], right_N: np.ndarray[Any, Any], trust: Trust, samples: VqaSamples, risk: float
) -> Values:
    """Shares with their intervals, over images."""
    rng, images, everything = np.random.default_rng(0), samples.image_keys, np.ones(len(right_N), dtype=bool)

    def share(of: np.ndarray[Any, Any], among: np.ndarray[Any, Any] = everything) -> Values | None:
        return _share(of, among, images, rng)

    alone, listed = (found[name] > 0 for name in ("alone", "listed"))
    possible = bool(np.isfinite(trust.sets.bound(risk)))
    types = np.array(samples.question_types)
    return {
        "risk": risk,
        "guarantee": trust.sets.promise(risk),
        "coverage": share(found["covered"]) if possible else None,
        "coverage_by_question_type": {str(kind): share(found["covered"], types == kind) for kind in np.unique(types)}
        if possible
        else {},
        "answers_in_a_list": float(found["size"].mean()) if possible else None,
        "unfamiliar": share(found["foreign"]) if trust.gate else None,
        "referred": share(found["referred"]),
        "answered": share(found["alone"]),
        "right_of_answered": share(right_N, alone),
        "short_lists": share(found["listed"]),
        "covered_of_short_lists": share(found["covered"], listed),
    }


def _share(
    of: np.ndarray[Any, Any], among: np.ndarray[Any, Any], images: Sequence[Hashable], rng: np.random.Generator
) -> Values | None:
    if not among.any():
        return None
    interval = bootstrap_mean(of[among], [image for image, own in zip(images, among, strict=True) if own], rng)
    return {"mean": interval.mean, "ci95": [interval.low, interval.high], "n": int(among.sum())}
