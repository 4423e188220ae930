"""Tables and plots of arms that are set apart by factors, against answers that are known."""

from xml.etree import ElementTree

import numpy as np
import pytest

from mumc_model.evaluate import AnswerRow
from simulations.report import build_report
from simulations.report_factors import ablation_heads, ablation_rows, curve_heads, curve_rows
from simulations.report_html import to_html
from simulations.report_plots import draw_plots
from simulations.report_study import ArmFacts, ArmResult, Study
from simulations.report_table import factor_tables, to_markdown


def result(arm, pattern, seed):
    rows = [
        AnswerRow(
            image=f"images/{number}.png",
            question_type="organ",
            answer_type="OPEN",
            truth="liver",
            prediction="liver" if right == "1" else "lung",
            correct=right == "1",
            confidence=0.5,
        )
        for number, right in enumerate(pattern)
    ]
    return ArmResult(arm=arm, seed=seed, site="one", rows=rows)


def report_of(answers, factors, pairs):
    study = Study(
        name="s",
        data="synthetic",
        case="c",
        command="x",
        results=[result(arm, pattern, seed) for arm, pattern in answers.items() for seed in (1, 2)],
        questions=[],
        facts=[ArmFacts(arm=arm, seed=1, values={"retrieval_at_5": 0.5}) for arm in answers],
        arm_factors=factors,
        pairs=pairs,
    )
    return build_report(study, np.random.default_rng(0))


@pytest.fixture(scope="module")
def ablation():
    answers = {
        "federated": "1111",
        "centralised": "1110",
        "f-no-itm": "1100",
        "f-no-masking": "1100",
        "c-no-itm": "1110",
    }
    factors = {
        "f-no-itm": {"setting": "federated", "without": "itm"},
        "f-no-masking": {"setting": "federated", "without": "masking"},
        "c-no-itm": {"setting": "centralised", "without": "itm"},
    }
    pairs = [
        ("f-no-itm", "federated"),
        ("f-no-masking", "f-no-itm"),
        ("f-no-masking", "federated"),
        ("c-no-itm", "centralised"),
    ]
    return report_of(answers, factors, pairs)


@pytest.fixture(scope="module")
def shift():
    answers = {
        "scratch-0": "0000",
        "federated-0": "1000",
        "scratch-8": "1000",
        "federated-8": "1100",
        "federated-32": "1111",
    }
    factors = {
        "scratch-0": {"setting": "scratch", "examples": 0, "tuning": "matching"},
        "federated-0": {"setting": "federated", "examples": 0, "tuning": "matching"},
        "federated-32": {"setting": "federated", "examples": 32, "tuning": "full"},
        "federated-8": {"setting": "federated", "examples": 8, "tuning": "full"},
        "scratch-8": {"setting": "scratch", "examples": 8, "tuning": "full"},
    }
    return report_of(answers, factors, [("federated-8", "scratch-8")])


def means(rows):
    return [[cell.partition(" (")[0] for cell in row] for row in rows]


def test_each_part_has_a_row_with_its_difference_from_the_full_model_of_its_own_setting(ablation):
    assert ablation_heads(ablation) == ["without", "federated", "centralised"]
    assert means(ablation_rows(ablation)) == [
        ["nothing, the full model", "100.0", "75.0"],
        ["itm", "−50.0", "0.0"],  # noqa: RUF001
        ["masking", "−50.0", "not run"],  # noqa: RUF001
    ]


def test_each_curve_has_a_row_with_its_accuracy_at_every_number_of_examples(shift):
    assert curve_heads(shift) == ["pre-training", "fine-tuning", "0 examples", "8 examples", "32 examples"]
    assert sorted(means(curve_rows(shift))) == [
        ["federated", "full", "", "50.0", "100.0"],
        ["federated", "matching", "25.0", "", ""],
        ["none", "full", "", "25.0", ""],
        ["none", "matching", "0.0", "", ""],
    ]


@pytest.mark.parametrize(
    ("name", "plot", "title"), [("ablation", "ablation", "What each"), ("shift", "examples", "Few")]
)
def test_the_table_is_in_markdown_and_on_the_page_with_its_plot(name, plot, title, request):
    report = request.getfixturevalue(name)
    plots = draw_plots(report)
    page, text = to_html(report, plots), to_markdown(report)
    assert plots[plot] in page
    ElementTree.fromstring(plots[plot].replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
    ((heading, _, _, rows),) = factor_tables(report)
    assert heading.startswith(title)
    assert f"## {heading}" in text
    for row in rows:
        assert f"| {' | '.join(row)} |" in text
        assert all(cell in page for cell in row)


def test_an_arms_factors_are_in_the_report_and_in_all_its_cells(shift):
    assert shift["factors"]["federated-8"] == {"setting": "federated", "examples": 8, "tuning": "full"}
    own = [cell for cell in shift["cells"] if cell["factors"]["arm"] == "federated-8"]
    assert {cell["metric"] for cell in own} == {"accuracy", "retrieval_at_5"}
    assert all((cell["factors"]["examples"], cell["factors"]["tuning"]) == (8, "full") for cell in own)


def test_a_report_without_factors_has_neither_table_nor_plot(shift):
    old = {key: value for key, value in shift.items() if key != "factors"}
    assert factor_tables(old) == []
    assert not {"ablation", "examples"} & draw_plots(old).keys()
