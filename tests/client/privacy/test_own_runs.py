"""Past runs are read from their reports, and a report that does not hold is named and never believed."""

import json
from collections import namedtuple

import pytest

from client.privacy import own_runs
from client.privacy.errors import PlanError
from client.privacy.own_runs import OwnRuns, read_own_runs
from mumc_model.evaluate import AnswerRow
from simulations import report as simulated
from simulations.report_study import ArmFacts, ArmResult, SiteQuestions, Study
from tests.client.privacy.past_runs import report, write_report

Asked = namedtuple("Asked", "question answer question_type labels", defaults=({},))
TEST = [Asked("which organ?", "lung", "organ")] * 4


def one(folder):
    (found,) = read_own_runs(folder).found
    return found


def test_a_private_arm_has_its_numbers_and_the_run_s(tmp_path):
    write_report(tmp_path / "run", seeds=3)
    own = one(tmp_path)
    assert (own.run, own.arm, own.data) == ("run", "warm-3", "synthetic")
    assert (own.sites, own.images_a_site, own.seeds) == (2, 400.0, 3)
    assert (own.epsilon, own.delta, own.noise_multiplier) == (3.0, 1e-4, 2.2)
    assert (own.accuracy, own.accuracy_ci95, own.answers) == (0.41, (0.35, 0.47), 200)
    assert own.retrieval_at_5 == pytest.approx(0.21)
    assert own.retrieval_at_5_seeds == pytest.approx((0.20, 0.22))
    assert own.without_noise == {"infinity": 0.5}


def test_the_nearest_runs_on_both_sides_are_shown_in_the_order_of_epsilon(tmp_path):
    for epsilon in (0.1, 0.5, 1, 2, 3, 5, 6, 8, 10, 12, 100):
        write_report(tmp_path / f"run-{epsilon}", epsilon=float(epsilon))
    assert [own.epsilon for own in read_own_runs(tmp_path).near(4.0)] == [0.5, 1, 2, 3, 5, 6, 8, 10]
    assert read_own_runs(tmp_path).to_dict(4.0)["own_runs_found"] == 11


def test_a_run_that_latest_points_to_counts_once_and_runs_of_a_sweep_are_found(tmp_path):
    write_report(tmp_path / "run")
    (tmp_path / "latest").symlink_to("run")
    write_report(tmp_path / "sweep" / "0")
    assert sorted(own.run for own in read_own_runs(tmp_path).found) == ["0", "run"]
    assert one(tmp_path / "run").run == "run"


def test_a_run_without_privacy_is_no_run_of_it(tmp_path):
    write_report(tmp_path / "run").write_text(json.dumps({**report(), "facts": {}}))
    assert read_own_runs(tmp_path) == OwnRuns()


def test_what_a_simulation_writes_can_be_read(tmp_path):
    assert (own_runs.FILE_NAME, own_runs.SCHEMA_VERSION) == (simulated.FILE_NAME, simulated.SCHEMA_VERSION)
    row = AnswerRow(
        image="a.png",
        question_type="organ",
        answer_type="OPEN",
        truth="lung",
        prediction="lung",
        correct=True,
        confidence=0.5,
    )
    facts = {"epsilon": 8.0, "delta": 1e-4, "noise_multiplier": 1.1, "retrieval_at_5": 0.2}
    study = Study(
        name="trial",
        data="synthetic",
        case="two hospitals",
        command="mumc-sim run",
        results=[ArmResult(arm=arm, seed=1, site="north", rows=[row] * 4) for arm in ("warm-8", "infinity")],
        questions=[SiteQuestions(seed=1, site="north", train=TEST, test=TEST, captions=40)],
        facts=[ArmFacts(arm="warm-8", seed=1, values=facts)],
    )
    simulated.write_report(study, tmp_path / "run")
    own = one(tmp_path)
    assert (own.arm, own.epsilon, own.accuracy, own.answers, own.images_a_site) == ("warm-8", 8.0, 1.0, 4, 40)
    assert (own.retrieval_at_5, own.without_noise) == (0.2, {"infinity": 1.0})


BROKEN = {
    "not JSON": "{",
    "not UTF-8": "\udcff",
    "no table": "[]",
    "deep": "[" * 100_000,
    "another version": {"schema_version": 2},
    "no version": {"schema_version": None},
    "arms are a list": {"arms": []},
    "an arm without a score": {"arms": {"warm-3": {"overall": None}}},
    "a share above 1": {"arms": {"warm-3": {"overall": {"mean": 41, "ci95": [0, 1], "n": 2}}}},
    "no number": {"arms": {"warm-3": {"overall": {"mean": "0.4", "ci95": [0, 1], "n": 2}}}},
    "true for a number": {"arms": {"warm-3": {"overall": {"mean": True, "ci95": [0, 1], "n": 2}}}},
    "not a number": '{"schema_version": 1, "arms": {"a": {}}, "facts": {"a": {"epsilon": NaN}}, "sites": {}}',
    "three ends": {"arms": {"warm-3": {"overall": {"mean": 0.4, "ci95": [0, 0.5, 1], "n": 2}}}},
    "facts of an arm are a text": {"facts": {"warm-3": "epsilon"}},
    "epsilon of zero": {"facts": {"warm-3": {"epsilon": 0, "delta": 1e-4, "noise_multiplier": 1}}},
    "epsilon without end": {"facts": {"warm-3": {"epsilon": 10**400, "delta": 1e-4, "noise_multiplier": 1}}},
    "sites are missing": {"sites": None},
    "a site without a size": {"sites": {"north": {}}},
    "seeds are a number": {"seeds": 3},
    "cells are missing": {"cells": None},
    "a cell without factors": {"cells": [{"metric": "retrieval_at_5", "value": 0.3}]},
    "a line break in a name": {"data": "synthetic\n\x1b[2J"},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_report_that_does_not_hold_is_left_out_and_named(fault, tmp_path):
    path, broken = write_report(tmp_path / "bad"), BROKEN[fault]
    text = broken if isinstance(broken, str) else json.dumps({**report(), **broken})
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    write_report(tmp_path / "good")
    found = read_own_runs(tmp_path)
    assert [own.run for own in found.found] == ["good"]
    (problem,) = found.problems
    assert problem.startswith(f"{path}: ")
    assert problem.isprintable()
    assert len(problem) < len(str(path)) + 200


def test_a_report_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    write_report(tmp_path / "run")
    monkeypatch.setattr(own_runs, "MOST_BYTES", 100)
    assert "larger than" in read_own_runs(tmp_path).problems[0]


def test_a_folder_in_a_report_s_place_is_passed_over_and_no_folder_at_all_is_an_error(tmp_path):
    (tmp_path / "run" / "report.json").mkdir(parents=True)
    assert read_own_runs(tmp_path) == OwnRuns()
    with pytest.raises(PlanError, match="there is no folder"):
        read_own_runs(tmp_path / "nowhere")
