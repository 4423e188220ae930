"""Every sentence follows from an interval, or claims nothing."""

from dataclasses import replace

import pytest

from client.board.facts import BoardFacts, Comparison, Gap, NotMeasured, Privacy
from client.board.verdict import findings, guess_sentence, losers, privacy_sentence, verdict, worst_group
from tests.client.board.conftest import group


def comparison(gap, **more):
    overall = group("all questions", (0.5, 0.4, 0.6), (0.5 + gap[0], 0.5, 0.7), gap, **more)
    return Comparison(overall=overall, answer_types=(), question_types=(), smallest=10)


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        ((0.1, 0.04, 0.16), "The federated model answers better than the local-only one: +10.0 (+4.0 to +16.0) points"),
        ((-0.1, -0.16, -0.04), "The federated model answers worse than the local-only one: −10.0 (−16.0 to −4.0)"),  # noqa: RUF001
        ((0.1, -0.01, 0.21), "No difference is shown: over 100 answers the federated model is +10.0 (−1.0 to +21.0)"),  # noqa: RUF001
        ((-0.1, -0.2, 0.0), "No difference is shown"),
        ((0.1, 0.0, 0.2), "No difference is shown"),
        ((0.0, 0.0, 0.0), "No difference is shown"),
    ],
)
def test_the_verdict_is_that_of_the_interval(gap, said):
    told = verdict(comparison(gap))
    assert told.startswith(said)
    assert ("better" in told, "worse" in told) == ("better" in said, "worse" in said)


def test_an_interval_of_few_images_allows_no_verdict():
    assert verdict(comparison((0.5, 0.4, 0.6), images=9)) == (
        "Whether joining made the answers better cannot be told from test questions about 9 images; at least 10 are "
        "needed."
    )


def test_without_both_models_nothing_is_said_of_a_difference():
    missing = NotMeasured("accuracy of a local-only model", "none was evaluated here")
    told = "Whether joining made the answers better was not measured: none was evaluated here."
    assert verdict(missing) == told
    assert verdict(_without(missing)) == told


def _without(missing):
    found = comparison((0.5, 0.4, 0.6))
    return replace(found, overall=replace(found.overall, local=missing, gap=missing))


def test_the_worst_group_is_named_with_the_caveat_that_it_was_chosen(facts):
    told = worst_group(facts.comparison)
    assert told.startswith(
        "Worst group with the federated model: plane, 35.0 (25.0 to 45.0) percent right of 74 answers."
    )
    assert "Choosing the worst makes it look worse than it is" in told
    assert worst_group(comparison((0.1, 0.0, 0.2))) == ""


def test_groups_that_lost_are_named_only_where_their_interval_says_so(facts):
    assert losers(facts.comparison) == "For no group is it shown that joining made its answers worse."
    lost = group("size", (0.6, 0.5, 0.7), (0.4, 0.3, 0.5), (-0.2, -0.3, -0.1))
    few = replace(lost, name="shape", images=9)
    found = replace(facts.comparison, question_types=(*facts.comparison.question_types, lost, few))
    assert losers(found).startswith("Answered worse than by the local-only model, by their intervals: size. Of twenty")
    missing = NotMeasured("accuracy", "none")
    assert losers(replace(found, question_types=(replace(lost, gap=missing),))) == ""


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        (
            Gap(0.2, 0.11, 0.29),
            "The federated model answers better than without looking: +20.0 (+11.0 to +29.0) points",
        ),
        (Gap(-0.2, -0.29, -0.11), "The federated model answers worse than without looking"),
        (Gap(0.05, 0.0, 0.1), "It is not shown that the federated model gains from looking at the image: it is +5.0"),
        (
            NotMeasured("gain", "nobody guessed"),
            "Whether the federated model knows more than the words of the question",
        ),
    ],
)
def test_a_guess_without_the_image_is_the_measure_of_looking(guess, said):
    assert guess_sentence(guess).startswith(said)


def test_privacy_is_rounded_up_and_never_invented():
    missing = NotMeasured("privacy spent", "the ledger cannot be believed")
    bounded = Privacy(kind="bounded", unit="patient", epsilon=3.2101, cap=8.0, delta=1e-6)
    assert privacy_sentence(bounded) == "Privacy spent: epsilon 3.22 of at most 8.00 for each patient."
    for runs, beyond in ((1, "; 1 run here without differential privacy is not covered."), (3, "; 3 runs here ")):
        assert beyond in privacy_sentence(replace(bounded, uncharged=runs))
    assert privacy_sentence(Privacy.without("image")).startswith("No differential privacy was used")
    unknown = Privacy(kind="unknown", unit="patient", epsilon=missing, cap=missing, delta=missing)
    assert privacy_sentence(unknown) == "The privacy spent was not measured: the ledger cannot be believed."


def test_what_was_not_measured_stands_in_the_findings_as_such(facts: BoardFacts):
    assert findings(facts)[-1] == (
        "Sent: 812.0 MB. Machine at work: 31.4 h. Energy: 10.99 kWh. Cost in all: not measured."
    )
