"""What a run's files say of it: attempts, absences and sentences that never hide a loss."""

import json

import pytest
from hypothesis import given, settings

from server.errors import OutputError
from server.history import History, headline
from server.journal import Journal
from tests.server.histories import config, histories, record

ALL = ("a", "b", "c")


def told(records, rounds=2, **changes):
    return History(run_id="trial", records=records, config=config(rounds), **changes)


def test_a_round_counts_once_however_often_it_was_tried():
    history = told([record(1), record(1, merged=ALL, attempt=2), record(2, merged=ALL)])
    assert [(r.round, r.attempt) for r in history.merged] == [(1, 2), (2, 1)]
    assert len(history.void) == 1
    assert "1 attempt at a round came to nothing." in headline(history)
    assert not history.whole


def test_a_round_that_a_resumed_run_played_again_counts_as_it_ended_last():
    history = told([record(1, merged=("a",)), record(1, merged=ALL), record(2, merged=ALL)])
    assert history.lost == {}
    assert len(history.merged) == 2


def test_who_was_lost_is_counted_in_rounds_and_the_worst_comes_first():
    history = told([record(1, merged=("a", "b"), refused={"c": "no_answer"}), record(2, merged=("a",))])
    assert {site: len(records) for site, records in history.lost.items()} == {"b": 1, "c": 2}
    assert "Sites were lost: c (2 rounds), b (1 round)." in headline(history)


def test_a_site_that_never_came_has_no_name_and_is_counted():
    history = told([record(n, merged=("a", "b")) for n in (1, 2)])
    assert history.strangers == 1
    assert headline(history)[0] == "2 of 2 rounds were merged, without masks; 0 with all 3 sites."
    assert "1 expected site never came, so that no name is known." in headline(history)


def test_a_site_that_releases_nothing_in_the_end_is_named():
    history = History(
        run_id="trial",
        records=[record(1, merged=ALL)],
        config=config(1, "finetune"),
        metrics={"a": {"accuracy": 0.5}, "b": {}},
        refused={"c": "disk"},
    )
    assert history.unheard == {"c": "disk"}
    assert "Nothing came after the last round from c." in headline(history)
    assert not history.whole


def test_a_run_in_which_nothing_was_lost_is_whole_and_says_one_sentence():
    history = told([record(n, merged=ALL) for n in (1, 2)])
    assert history.whole
    assert headline(history) == ["2 of 2 rounds were merged, without masks; 2 with all 3 sites."]


@settings(deadline=None, max_examples=100)
@given(histories())
def test_no_run_that_lost_a_site_or_a_round_is_whole_or_silent(history):
    complete = all(set(r.merged) == set(history.sites) for r in history.records)
    assert history.whole == (complete and len(history.merged) == history.planned)
    assert ("Sites were lost" in " ".join(headline(history))) == any(
        set(r.merged) != set(history.sites) for r in history.merged
    )


def test_a_folder_is_read_at_work_finished_and_without_either(tmp_path):
    with pytest.raises(OutputError, match="neither"):
        History.read(tmp_path)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(record(1, merged=ALL))
    at_work = History.read(tmp_path)
    assert (at_work.finished, at_work.planned, at_work.run_id) == (False, None, "trial")
    assert "There is no result yet: the run is at work, or it was broken off." in headline(at_work)
    (tmp_path / "config.json").write_text(json.dumps(config(4, "finetune")))
    assert headline(History.read(tmp_path))[0].startswith("1 of 4 rounds were merged")
    assert not History.read(tmp_path).whole
    vqa = {"sites": {"a": {"examples": 5, "metrics": {"accuracy": 0.5}}}, "refused": {"b": "disk"}, "reasons": {}}
    result = {"run_id": "trial", "config": config(1, "finetune"), "vqa": vqa, "enrolled": ["d"], "code": "0" * 64}
    (tmp_path / "result.json").write_text(json.dumps(result))
    finished = History.read(tmp_path)
    assert finished.finished
    assert finished.sites == ["a", "b", "c", "d"]
    assert finished.metrics == {"a": {"accuracy": 0.5}}
    assert finished.code == "0" * 64


@pytest.mark.parametrize("text", ["{", "[1]", '{"run_id": "trial"}'])
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(OutputError, match=r"result\.json"):
        History.read(tmp_path)
