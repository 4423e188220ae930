"""The board's page of a simulation says what its report says, for all hospitals and for one."""

import json
import sys

import numpy as np
import pytest

from client.board.facts import Comparison, NotMeasured
from client.board.prices import Prices
from client.board.verdict import findings
from client.board.words import to_document
from mumc_model.evaluate import AnswerRow
from mumc_model.statistics import paired_difference
from simulations.board import board_numbers, of_report
from simulations.cli import main
from simulations.report import build_report, write_report
from simulations.report_scores import gather
from simulations.report_study import ArmFacts, ArmResult, ReportError, Study, Training

SITES = ("north & co", "süd")


def rows(right):
    return [
        AnswerRow(
            image=f"images/{n // 2}.png",
            question_type=("organ", "plane")[n % 2],
            answer_type="OPEN",
            truth="t",
            prediction="p",
            correct=n < right,
            confidence=0.5,
        )
        for n in range(40)
    ]


def study(arms, **more):
    """Two hospitals with forty questions each, of which an arm has so many right at both."""
    return Study(
        name="made up",
        data="synthetic",
        case="two hospitals",
        command="pytest",
        results=[
            ArmResult(arm=arm, seed=0, site=site, rows=rows(right[number]))
            for arm, right in arms.items()
            for number, site in enumerate(SITES)
        ],
        questions=(),
        training=[
            Training(
                arm=arm, seed=0, losses=[{"total": 1.0}] * 3, bytes_up=5_000_000, bytes_down=7_000_000, wall_s=7200
            )
            for arm in arms
        ],
        selection="by validation",
        **more,
    )


@pytest.fixture(scope="module")
def report():
    return json.loads(
        json.dumps(build_report(study({"local": (20, 10), "federated": (30, 10)}), np.random.default_rng(0)))
    )


def test_every_hospital_and_all_of_them_are_compared(report):
    assert list(report["board"]) == ["all sites", *SITES]
    shares = {
        name: (
            found["overall"]["local"]["mean"],
            found["overall"]["federated"]["mean"],
            found["overall"]["gap"]["mean"],
        )
        for name, found in report["board"].items()
    }
    assert shares == {"all sites": (0.375, 0.5, 0.125), "north & co": (0.5, 0.75, 0.25), "süd": (0.25, 0.25, 0.0)}


def test_the_difference_is_that_of_the_report_paired_by_question():
    answers = gather(study({"local": (20, 10), "federated": (30, 10)}))
    found = board_numbers(answers, np.random.default_rng(0))["all sites"]["overall"]["gap"]
    expected = paired_difference(
        answers["federated"].values, answers["local"].values, answers["local"].clusters(), np.random.default_rng(7)
    )
    assert found["mean"] == expected.mean
    assert found["ci95"] == pytest.approx([expected.low, expected.high], abs=0.03)


def test_the_page_shows_the_intervals_that_the_report_shows(report):
    found, arms = of_report(report, Prices()).comparison, report["arms"]
    for group in (found.overall, *found.question_types):
        for name in ("local", "federated"):
            shown = arms[name]["overall"] if group is found.overall else arms[name]["by_question_type"][group.name]
            share = getattr(group, name)
            assert (share.mean, [share.low, share.high]) == (shown["mean"], shown["ci95"])
    gap = report["differences"]["federated-local"]
    assert (found.overall.gap.mean, [found.overall.gap.low, found.overall.gap.high]) == (gap["diff"], gap["ci95"])
    own, shown = of_report(report, Prices(), "süd").comparison.overall.local, arms["local"]["sites"]["süd"]
    assert [own.low, own.high] == shown["ci95"]


def test_the_facts_are_those_of_the_report(report):
    found = of_report(report, Prices(watts=500.0, currency="EUR", kwh_price=0.2))
    assert isinstance(found.comparison, Comparison)
    assert found.comparison.overall.federated.mean == 0.5
    assert (found.effort.rounds, found.effort.bytes_up, found.effort.bytes_down) == (3, 5_000_000, 7_000_000)
    assert (found.effort.hours, found.effort.kwh, found.costs.electricity) == (2.0, 1.0, pytest.approx(0.2))
    assert found.privacy.kind == "unbounded"
    assert "say nothing of accuracy on patients" in found.simulated


def test_one_hospital_has_its_own_answers_and_what_is_counted_together_only_is_not_measured(report):
    found = of_report(report, Prices(), "süd")
    assert found.comparison.overall.gap.mean == 0.0
    assert isinstance(found.effort.bytes_up, NotMeasured)
    assert findings(found)[0].startswith("No difference is shown: over 40 answers")
    with pytest.raises(ReportError, match="did you mean 'süd'"):
        of_report(report, Prices(), "sud")


def test_a_guess_by_the_question_alone_stands_beside_the_models_where_it_was_made(report):
    guessed = report | {
        "differences": {"federated-question_only": {"diff": -0.04, "ci95": [-0.1, 0.01], "by_seed": {}}}
    }
    assert findings(of_report(guessed, Prices()))[-3].startswith("It is not shown that the federated model gains")
    assert isinstance(of_report(guessed, Prices(), "süd").guess, NotMeasured)
    assert of_report(report, Prices()).guess.why == "nobody guessed"


def test_the_budget_of_a_private_arm_is_told():
    spent = [ArmFacts(arm="federated", seed=0, values={"epsilon": 2.5, "delta": 1e-5})]
    report = build_report(study({"local": (20, 10), "federated": (30, 10)}, facts=spent), np.random.default_rng(0))
    found = of_report(report, Prices()).privacy
    assert (found.kind, found.epsilon, found.delta) == ("bounded", 2.5, 1e-5)


@pytest.mark.parametrize(
    ("arms", "why"),
    [({"federated": (1, 1)}, "no arm local"), ({"scratch": (1, 1)}, "no arm federated and none local")],
)
def test_without_both_arms_there_is_no_comparison(arms, why):
    report = build_report(study(arms), np.random.default_rng(0))
    found = of_report(report, Prices())
    assert isinstance(found.comparison, NotMeasured)
    assert why in found.comparison.why
    assert all(text for text in to_document(found).texts())


def test_a_report_of_an_older_version_says_so(report):
    old = {key: value for key, value in report.items() if key != "board"}
    assert "older version" in of_report(old, Prices()).comparison.why


@pytest.fixture
def written(tmp_path):
    write_report(study({"local": (20, 10), "federated": (30, 10)}), tmp_path / "run")
    return tmp_path / "run"


def called(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["mumc-sim", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


def test_mumc_sim_report_prints_the_table_and_writes_the_page_beside_the_report(written, monkeypatch, capsys):
    code, out, _ = called(monkeypatch, capsys, "report", written)
    assert code == 0
    assert "percent of test questions right" in out
    page = (written / "board.html").read_text()
    assert "Simulation &#x27;made up&#x27;, all hospitals" in page
    assert (written / "board.pdf").read_bytes().startswith(b"%PDF")


def test_one_hospitals_page_with_prices_goes_where_it_is_asked_for(written, tmp_path, monkeypatch, capsys):
    prices = tmp_path / "site.yaml"
    prices.write_text("board: {currency: EUR, staff_hours: 3, staff_hour_price: 50}\n")
    arguments = ("report", written, "--site", "north & co", "--prices", prices, "--out", tmp_path / "page")
    assert called(monkeypatch, capsys, *arguments)[0] == 0
    page = (tmp_path / "page" / "board.html").read_text()
    assert "hospital north &amp; co" in page
    assert "150.00 EUR" in page
    assert not (written / "board.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--site", "sud"), "did you mean 'süd'"), (("--prices", "none.yaml"), "cannot be read")],
)
def test_what_is_not_there_is_said_in_one_line(written, monkeypatch, capsys, arguments, message):
    code, _, err = called(monkeypatch, capsys, "report", written, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
