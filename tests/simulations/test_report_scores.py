from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mumc_model.evaluate import AnswerRow
from simulations.report_scores import cells, difference, gather, score, scores
from simulations.report_study import ArmResult, ReportError, SiteQuestions, Study

Asked = namedtuple("Asked", "question answer question_type labels", defaults=({},))


def row(right, image="a.png", *, question_type="organ", answer_type="OPEN", truth="liver"):
    return AnswerRow(
        image=image,
        question_type=question_type,
        answer_type=answer_type,
        truth=truth,
        prediction=truth if right else "other",
        correct=bool(right),
        confidence=0.5,
    )


def result(arm, pattern, *, seed=0, site="one", **names):
    return ArmResult(
        arm=arm, seed=seed, site=site, rows=[row(c == "1", f"{i}.png", **names) for i, c in enumerate(pattern)]
    )


def study(*results, questions=()):
    return Study(name="t", data="synthetic", case="c", command="x", results=results, questions=questions)


def rng():
    return np.random.default_rng(0)


def test_accuracy_is_the_share_of_right_answers_with_its_count():
    found = score(gather(study(result("federated", "1101")))["federated"], rng())
    assert found["mean"] == 0.75
    assert found["n"] == 4
    assert found["ci95"][0] <= 0.75 <= found["ci95"][1]


def test_a_kind_of_question_that_nobody_asked_has_no_score():
    found = scores(gather(study(result("federated", "11")))["federated"], rng())
    assert found["closed"] is None
    assert found["open"]["mean"] == 1.0


def test_the_worst_site_is_the_one_with_the_lowest_accuracy_and_is_named():
    both = gather(study(result("local", "11", site="good"), result("local", "10", site="poor")))
    found = scores(both["local"], rng())
    assert found["worst_site"]["site"] == "poor"
    assert found["worst_site"]["mean"] == 0.5
    assert found["sites"]["good"]["mean"] == 1.0


def test_a_difference_is_paired_so_equal_patterns_differ_by_exactly_zero():
    arms = gather(study(result("federated", "1100" * 9), result("local", "1100" * 9)))
    found = difference(arms["federated"], arms["local"], rng())
    assert (found["diff"], found["ci95"]) == (0.0, [0.0, 0.0])


def test_a_difference_names_its_value_for_every_seed_and_site():
    arms = gather(
        study(
            result("federated", "11", seed=1),
            result("federated", "10", seed=2),
            result("local", "10", seed=1),
            result("local", "10", seed=2),
        )
    )
    found = difference(arms["federated"], arms["local"], rng())
    assert found["by_seed"] == {"1": 0.5, "2": 0.0}
    assert found["by_site"] == {"one": 0.25}


def test_arms_that_were_asked_other_questions_are_not_compared():
    with pytest.raises(ReportError, match="same hospitals, seeds and test split"):
        gather(study(result("federated", "11"), result("local", "11", truth="spleen")))


def test_a_site_that_answers_twice_for_one_seed_is_refused():
    with pytest.raises(ReportError, match="two results for one seed and site"):
        gather(study(result("local", "11"), result("local", "10")))


def test_an_empty_study_is_refused_with_the_remedy():
    with pytest.raises(ReportError, match="run at least one arm"):
        gather(study())


def test_the_order_in_which_sites_report_does_not_matter():
    parts = [result(arm, "10", seed=s, site=site) for arm in ("a", "b") for s in (2, 1) for site in ("y", "x")]
    forward, backward = gather(study(*parts)), gather(study(*reversed(parts)))
    assert forward["a"].questions() == backward["a"].questions()


def test_seeds_with_the_same_hospitals_resample_an_image_with_its_answers_of_all_seeds():
    same = gather(study(*(result("local", "1010", seed=s) for s in (1, 2, 3))))["local"]
    assert len(set(same.clusters())) == 4


def test_seeds_that_deal_the_same_images_to_other_sites_still_resample_an_image_as_one():
    dealt = gather(study(result("local", "10", seed=1, site="a"), result("local", "10", seed=2, site="b")))["local"]
    assert len(set(dealt.clusters())) == 2


def test_seeds_that_draw_their_own_hospitals_resample_images_of_each_seed_though_file_names_repeat():
    drawn = gather(study(result("local", "10", seed=1), result("local", "10", seed=2, truth="spleen")))["local"]
    assert len(set(drawn.clusters())) == 4


def test_repeating_the_same_answers_as_further_seeds_does_not_narrow_the_interval():
    once = score(gather(study(result("local", "1001101" * 8)))["local"], rng())
    thrice = score(gather(study(*(result("local", "1001101" * 8, seed=s) for s in range(3))))["local"], rng())
    assert once["ci95"] == pytest.approx(thrice["ci95"])


def test_guesses_see_the_words_and_the_training_answers_of_their_own_site_only():
    train = [Asked("which organ?", "liver", "organ")] * 2 + [Asked("where is it?", "left", "organ")]
    test = [Asked("which organ?", "liver", "organ"), Asked("where is it?", "left", "organ")]
    rows = [row(False, "a.png"), row(False, "b.png", truth="left")]
    arm = ArmResult(arm="local", seed=0, site="one", rows=rows)
    found = gather(study(arm, questions=[SiteQuestions(seed=0, site="one", train=train, test=test)]))
    assert found["question_only"].values.tolist() == [1.0, 1.0]
    assert found["majority"].values.tolist() == [1.0, 0.0]
    assert found["chance"].values.tolist() == [0.5, 0.5]


def test_test_questions_other_than_those_answered_are_refused():
    other = SiteQuestions(seed=0, site="one", train=[], test=[Asked("which side?", "left", "side")])
    with pytest.raises(ReportError, match="in the same order"):
        gather(study(result("local", "1"), questions=[other]))


def test_cells_hold_each_seed_alone_with_the_factors_of_the_run():
    arms = gather(study(result("local", "11", seed=1), result("local", "10", seed=2)))
    found = list(cells("local", arms["local"], {"unlike": 0.5}, rng()))
    whole = [c for c in found if c["factors"]["site"] == "all" and c["factors"]["answer_type"] == "all"]
    assert [(c["seed"], c["value"], c["n"]) for c in whole] == [(1, 1.0, 2), (2, 0.5, 2)]
    assert all(c["factors"]["unlike"] == 0.5 and c["metric"] == "accuracy" for c in found)


@given(st.lists(st.text("01", min_size=1, max_size=12), min_size=1, max_size=4))
def test_the_overall_accuracy_is_the_mean_over_all_answers_however_they_are_split_over_sites(patterns):
    parts = [result("local", pattern, site=f"site-{i}") for i, pattern in enumerate(patterns)]
    answers = gather(study(*parts))["local"]
    assert answers.values.mean() == pytest.approx("".join(patterns).count("1") / len("".join(patterns)))
    assert len(set(answers.clusters())) == len(answers)
