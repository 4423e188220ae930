"""The report of a run: every site and every absence is named, and nothing a site says breaks the table."""

from dataclasses import replace

import pytest

from configs.compose import compose
from configs.loader import load
from protocol.messages import Report
from server.config import RunConfig
from server.history import History
from server.journal import RoundRecord
from server.report import to_markdown
from server.tally import Tally


def report_text(*run):
    """A run that has just ended, in Markdown."""
    return to_markdown(History.of(*run))


@pytest.fixture(scope="module")
def config():
    return load(RunConfig, compose("run", ["federation.rounds=3", "federation.sites=3"]))


def record(round, *, merged=(), attempt=1, masked=False, **changes):
    secagg = {"threshold": 2, "absent": {}} if masked else {}
    return RoundRecord(
        run_id="trial",
        round=round,
        attempt=attempt,
        sites_expected=3,
        sites_merged=len(merged),
        merged=list(merged),
        refused=changes.pop("refused", {}),
        examples=10,
        losses={"total": 1.25},
        update_norm=0.1,
        bytes_up=2_000_000,
        bytes_down=1_000_000,
        seconds=3.14,
        lr=1.0,
        secagg=secagg,
        **changes,
    )


def metrics(site, **values):
    return Report(run_id="trial", round=4, attempt=1, site=site, examples=5, metrics=values, base_digest="0" * 64)


def test_an_absence_is_named_with_its_round_stage_and_reason(config):
    lost = record(2, merged=["a", "c"], masked=True, refused={"b": "no_answer"}, reasons={"b": "gone"})
    lost = replace(lost, secagg=lost.secagg | {"absent": {"b": {"stage": "mask", "code": "no_answer"}}})
    records = [record(1, merged=["a", "b", "c"], masked=True), lost, record(3, merged=["a", "b", "c"], masked=True)]
    tally = Tally()
    tally.reports = {"a": metrics("a", accuracy=0.5, tested=12.0), "c": metrics("c", accuracy=0.25, tested=8.0)}
    tally.refused, tally.reasons = {"b": "policy_hours"}, {"b": "the order's time is 12:00"}
    lines = report_text(config, "trial", records, tally).splitlines()
    assert "3 of 3 rounds were merged, under masks, threshold 2; 2 with all 3 sites." in lines
    assert "| a | 3 of 3 | never |" in lines
    assert "| b | 2 of 3 | round 2: no_answer: gone (stage mask) |" in lines
    assert "| 2 | 2/3 | threshold 2 | 1.250 | 3.1 | 2.00 | 1.00 |" in lines
    assert "| a | 0.500 | 12 |  |" in lines
    assert "| b |  |  | policy_hours: the order's time is 12:00 |" in lines


def test_a_site_that_was_never_asked_is_named_too(config):
    text = report_text(config, "trial", [record(1, merged=["a"]), record(2, merged=["a"])], Tally(), ["a", "late"])
    assert "| late | 0 of 2 | round 1: offline; round 2: offline |" in text
    assert "2 of 3 rounds were merged, without masks; 0 with all 3 sites." in text
    assert "1 expected site never came" in text


def test_a_void_attempt_is_no_merged_round(config):
    void = record(1, masked=True, refused={"b": "no_answer"})
    text = report_text(config, "trial", [void, record(1, merged=["a", "b"], attempt=2, masked=True)], Tally())
    assert "1 of 3 rounds were merged" in text
    assert "| 1 | 0/3, void | threshold 2 |" in text
    assert "| 1.2 | 2/3 | threshold 2 |" in text
    assert "| a | 1 of 1 | round 1: void, as too few others answered |" in text


def test_what_a_site_says_cannot_leave_its_cell(config):
    lost = record(1, merged=["a"], refused={"b": "bad"}, reasons={"b": "x | y <script> \\"})
    (row,) = [line for line in report_text(config, "trial", [lost], Tally()).splitlines() if line.startswith("| b ")]
    assert row == "| b | 0 of 1 | round 1: bad: x \\| y &lt;script> \\\\ |"


def test_what_a_site_says_loads_nothing_where_the_report_is_read(config):
    lost = record(1, merged=["a"], refused={"b": "bad"}, reasons={"b": "![x](https://b.example/seen) `*now*` &lt;"})
    (row,) = [line for line in report_text(config, "trial", [lost], Tally()).splitlines() if line.startswith("| b ")]
    assert row == "| b | 0 of 1 | round 1: bad: !\\[x\\](https://b.example/seen) \\`\\*now\\*\\` &amp;lt; |"


def test_a_run_without_rounds_reports_what_came_of_it(config):
    run = replace(config, federation=replace(config.federation, rounds=0, final="rehearse", sites=1, min_sites=1))
    tally = Tally()
    tally.reports = {"a": metrics("a", total=3.0)}
    text = report_text(run, "trial", [], tally, ["a", "b"])
    assert "## Rehearsal" in text
    assert "| a |  |  |" in text
    assert "| b |  | offline |" in text
