import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mumc_model.metrics import (
    area_under_risk,
    bleu_1,
    brier_score,
    calibration_error,
    reliability,
    risk_coverage,
    token_f1,
)

WORDS = st.lists(st.sampled_from(["left", "right", "lung", "mass", "large"]), max_size=5).map(" ".join)
ANSWERED = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("prediction", "truth", "f1", "bleu"),
    [
        ("left lung", "Left lung.", 1, 1),
        ("lung", "left lung", 2 / 3, np.exp(-1)),
        ("left left lung", "left lung", 4 / 5, 2 / 3),
        ("heart", "left lung", 0, 0),
        ("", "lung", 0, 0),
        ("", "", 1, 1),
    ],
)
def test_words_in_common_are_counted_once_for_each_time_they_occur(prediction, truth, f1, bleu):
    assert token_f1(prediction, truth) == pytest.approx(f1)
    assert bleu_1(prediction, truth) == pytest.approx(bleu)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_full_only_for_the_same_words(a, b):
    assert token_f1(a, b) == token_f1(b, a)
    assert (token_f1(a, b) == 1) == (sorted(a.split()) == sorted(b.split()))


@given(ANSWERED)
def test_a_model_that_is_as_sure_as_it_is_right_has_no_error_and_others_at_most_one(answered):
    confidence, correct = zip(*answered, strict=True)
    assert 0 <= calibration_error(confidence, correct) <= 1
    assert calibration_error([float(right) for right in correct], correct) == 0
    assert brier_score([float(right) for right in correct], correct) == 0
    assert sum(share for share, _, _ in reliability(confidence, correct)) == pytest.approx(1)


@given(ANSWERED)
def test_all_answers_together_have_the_error_rate_and_the_area_lies_within_the_curve(answered):
    confidence, correct = zip(*answered, strict=True)
    coverage, risk = risk_coverage(confidence, correct)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - np.mean(correct))
    assert min(risk) - 1e-9 <= area_under_risk(coverage, risk) <= max(risk) + 1e-9


def test_refusing_the_unsure_answers_brings_the_risk_down_where_confidence_tells():
    coverage, risk = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, False])
    assert (coverage, risk) == ([0.25, 0.5, 0.75, 1.0], [0, 0, 1 / 3, 0.5])
    assert risk_coverage([0.5] * 4, [True, True, False, False]) == ([1.0], [0.5])


@pytest.mark.filterwarnings("ignore")
def test_calibration_and_bleu_are_those_of_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification", reason="a development dependency")
    text = pytest.importorskip("torchmetrics.functional.text", reason="a development dependency")
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator)
    correct = torch.rand(500, generator=generator) < confidence**2
    theirs = classification.binary_calibration_error(confidence, correct.int(), n_bins=15, norm="l1")
    assert calibration_error(confidence, correct) == pytest.approx(float(theirs), abs=1e-6)
    for prediction, truth in [("left lower lung", "left lung"), ("lung", "left lung"), ("mass mass", "mass")]:
        assert bleu_1(prediction, truth) == pytest.approx(float(text.bleu_score([prediction], [[truth]], n_gram=1)))
