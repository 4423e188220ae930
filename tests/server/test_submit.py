"""A run from the operator's command to the SuperLink, and what status says of it."""

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from configs.loader import ConfigurationError
from server.errors import ControlError, OutputError
from server.journal import Journal, RoundRecord
from server.output import result_json, write_config
from server.seal import write_nodes
from server.status import look, tables
from server.submit import follow, prepare, stop, submit, unfinished, wait_until_ended, why_failed
from server.tally import Tally
from tests.federation import found
from tests.server.link import Link


@pytest.fixture
def home(tmp_path):
    return found(tmp_path, "north", "south")


@pytest.fixture
def link(monkeypatch):
    monkeypatch.setattr("server.submit.installed_bundle", lambda: b"the bundle")
    return Link()


def record(run_id, round, refused):
    return RoundRecord(
        run_id=run_id,
        round=round,
        attempt=1,
        sites_expected=2,
        sites_merged=2 - len(refused),
        refused=refused,
        reasons=dict.fromkeys(refused, "the order's time is 12:00"),
        examples=1,
        losses={},
        update_norm=0.0,
        bytes_up=0,
        bytes_down=0,
        seconds=1.0,
        lr=1.0,
    )


def test_a_run_expects_all_enrolled_sites_and_has_a_folder_of_its_own(home):
    config = prepare(home, ["experiment=smoke"])
    assert config.federation.sites == 2
    assert config.run_id.startswith("smoke-20")
    assert config.output_dir == str(home.runs / config.run_id)
    named = prepare(home, ["run_id=trial", "federation.sites=1", "federation.min_sites=1"])
    assert (named.run_id, named.federation.sites) == ("trial", 1)


def test_a_mistake_is_seen_before_anything_is_submitted(home, tmp_path):
    with pytest.raises(ConfigurationError, match=r"did you mean 'federation\.rounds'"):
        prepare(home, ["federation.round=3"])
    with pytest.raises(ConfigurationError, match=r"federation\.sites is 3, and 2 sites are enrolled"):
        prepare(home, ["federation.sites=3"])
    with pytest.raises(ConfigurationError, match="no site is enrolled yet"):
        prepare(found(tmp_path / "empty"), [])
    (home.runs / "trial").mkdir()
    (home.runs / "trial" / "result.json").write_text("{}")
    with pytest.raises(OutputError, match="already holds a finished run"):
        prepare(home, ["run_id=trial"])


def test_what_is_submitted_is_the_run_that_was_checked(home, link):
    config = prepare(home, ["run_id=trial", "federation.rounds=7"])
    shown = []
    ended = follow(link, submit(link, config), config, shown.append)
    assert (ended.name, ended.status, ended.rounds) == ("trial", "finished:completed", 7)
    assert shown == ["round   1 | sites 2/2"]


def test_a_person_sees_the_lines_of_the_run_and_its_folder_keeps_flowers_too(home, link):
    config = prepare(home, ["run_id=trial"])
    parts = [
        "\x1b[92mINFO \x1b[0m:      Start `flwr-serverapp` process\n",
        *("sites 1/2 online; waiting for the others, at most 600 s\nrou", "nd   1 | sites 2/2 | 3.0 s", "\n"),
        "ERROR :     ServerApp raised an exception\nserver.errors.FederationError: round 2 is void\n\nExit Code: 201\n",
    ]
    link.logs = lambda flower_id: [link.ended.append(flower_id), *parts][1:]
    shown = []
    follow(link, submit(link, config), config, shown.append)
    assert shown == ["sites 1/2 online; waiting for the others, at most 600 s", "round   1 | sites 2/2 | 3.0 s"]
    assert (home.runs / "trial" / "output.log").read_text() == "".join(parts)


def test_why_a_run_failed_is_said_without_flowers_words(home, link):
    submit(link, prepare(home, ["run_id=trial"]))
    (ended,) = link.runs()
    failed = replace(ended, status="finished:failed", details="ServerApp failed with exception: round 2 is void")
    assert why_failed(failed) == "round 2 is void"
    assert why_failed(ended) == "it gave no reason"


@pytest.mark.parametrize(
    ("status", "ends", "says"),
    [
        ("finished:failed", 1, "trial failed: round 2 is void"),
        ("finished:stopped", 1, "trial was stopped; what it has saved is in "),
        ("interrupted", 130, "trial goes on; look at it with: mumc-server status "),
        ("finished:failed", 1, " --resume run_id=trial"),
        ("gone", 2, "the SuperLink does not answer, then go on with the run: mumc-server run "),
    ],
)
def test_a_run_that_does_not_complete_says_what_became_of_it(home, link, called, monkeypatch, status, ends, says):
    def end(asked, flower_id, config, show):
        if status == "interrupted":
            raise KeyboardInterrupt
        if status == "gone":
            raise ControlError("the SuperLink does not answer")
        return replace(asked.runs()[0], status=status, details="ServerApp failed with exception: round 2 is void")

    monkeypatch.setattr("server.submit.follow", end)
    monkeypatch.setattr("server.start.control", lambda _: nullcontext(link))
    code, out, err = called("run", str(home.root), "run_id=trial")
    assert (code, out) == (ends, "")
    assert says in err


def finished(home, name, *records, refused=None):
    """A finished run's folder."""
    config = prepare(home, [f"run_id={name}", "federation.rounds=2"])
    folder = home.runs / name
    write_config(folder, config)
    journal, tally = Journal(folder / "journal.jsonl"), Tally(refused=refused or {})
    for one in records:
        journal.append(replace(one, merged=sorted({"north", "south"} - one.refused.keys())))
    result = result_json(config, name, journal.records, tally, enrolled=["north", "south"])
    (folder / "result.json").write_bytes(result)
    (folder / "report.md").write_text(f"# {name}\n")
    return config


@pytest.mark.parametrize(
    ("lost", "refused", "ends", "state", "says"),
    [
        ({}, {}, 0, "finished:completed", ""),
        ({"south": "no_answer"}, {}, 3, "finished:with losses", "Sites were lost: south (1 round)."),
        ({}, {"south": "data"}, 3, "finished:with losses", "Nothing came after the last round from south."),
    ],
)
def test_a_run_that_did_without_a_site_is_no_plain_success(
    home, link, called, monkeypatch, lost, refused, ends, state, says
):
    config = finished(home, "trial", record("trial", 1, {}), record("trial", 2, lost), refused=refused)
    result = json.loads((home.runs / "trial" / "result.json").read_text())
    result["vqa"]["sites"] = {"north": {"examples": 1, "metrics": {"accuracy": 0.5}}}
    result["vqa"]["sites"] |= {} if refused else {"south": result["vqa"]["sites"]["north"]}
    (home.runs / "trial" / "result.json").write_text(json.dumps(result))
    monkeypatch.setattr("server.submit.prepare", lambda *_: config)
    monkeypatch.setattr("server.start.control", lambda _: nullcontext(link))
    code, out, err = called("run", str(home.root), "run_id=trial")
    assert (code, out) == (ends, "round   1 | sites 2/2\n# trial\n")
    assert says in err
    (run,) = look(home, link).runs
    assert (run.state, run.details) == (state, says)


def unfinished_run(home, name):
    config = prepare(home, [f"run_id={name}", "federation.rounds=7"])
    write_config(home.runs / name, config)
    return config


def test_resume_takes_the_newest_run_that_did_not_finish_as_it_was_configured(home, link, called, monkeypatch):
    first, second = unfinished_run(home, "first"), unfinished_run(home, "second")
    finished(home, "third", record("third", 1, {}))
    rehearsal = prepare(home, ["run_id=rehearsal", "federation.rounds=0", "federation.final=rehearse"])
    write_config(home.runs / "rehearsal", rehearsal)
    os.utime(home.runs / "first" / "config.json", (1, 1))
    assert unfinished(home, []) == second
    assert unfinished(home, ["run_id=first"]) == first
    monkeypatch.setattr("server.start.control", lambda _: nullcontext(link))
    assert called("run", str(home.root), "--resume", "--detach")[0] == 0
    assert link.resumed == ["second"]
    assert link.submitted[0]["federation"]["rounds"] == 7


def test_resume_refuses_other_settings_and_what_there_is_not_to_go_on_with(home):
    with pytest.raises(OutputError, match="has finished, so there is none to go on with"):
        unfinished(home, [])
    unfinished_run(home, "first")
    with pytest.raises(ConfigurationError, match=r"federation\.rounds cannot change: a run goes on with the settings"):
        unfinished(home, ["run_id=first", "federation.rounds=3"])
    with pytest.raises(OutputError, match="holds no run to go on with"):
        unfinished(home, ["run_id=other"])
    finished(home, "third")
    with pytest.raises(OutputError, match="already holds a finished run"):
        unfinished(home, ["run_id=third"])


def test_a_run_goes_on_once_the_superlink_has_noticed_that_its_program_died(home, link, monkeypatch):
    config, said, looks = unfinished_run(home, "trial"), [], iter(range(100))
    submit(link, config)

    def sleep(seconds):
        if next(looks) == 3:
            link.ended.append(1)

    monkeypatch.setattr("server.submit.time.sleep", sleep)
    wait_until_ended(link, config, said.append)
    assert said == ["trial is at work for the SuperLink; waiting at most 150 s"]
    submit(link, config)
    monkeypatch.setattr("server.submit.time.sleep", lambda seconds: None)
    with pytest.raises(ControlError, match="trial is still at work"):
        wait_until_ended(link, config, said.append)


def test_stop_takes_the_run_at_work_and_asks_which_if_there_are_more(home, link):
    with pytest.raises(ControlError, match="one run is not at work; at work: none"):
        stop(link, "")
    for name in ("one", "two"):
        submit(link, prepare(home, [f"run_id={name}"]))
    with pytest.raises(ControlError, match="one run is not at work; at work: one, two"):
        stop(link, "")
    assert stop(link, "two") == "two"
    link.ended.append(2)
    assert stop(link, "") == "one"
    with pytest.raises(ControlError, match="two is not at work; at work: one"):
        stop(link, "two")
    assert link.stopped == [2, 1]


def test_status_says_who_is_missing_since_when_and_how_far_a_run_is(home, link):
    lost = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    write_nodes(home, {"north": 100, "south": 101})
    for name, status, since in (("north", "online", lost), ("south", "offline", lost)):
        link.set(link.register(f"key of {name}", name), status, since)
    config = prepare(home, ["run_id=trial", "federation.rounds=7"])
    submit(link, config)
    journal = Journal(home.runs / "trial" / "journal.jsonl")
    journal.append(record("trial", 1, {}))
    journal.append(record("trial", 2, {"south": "policy_hours"}))
    seen = look(home, link)
    assert [(site.name, site.state, site.since) for site in seen.sites] == [
        ("north", "online", lost),
        ("south", "missing", lost),
    ]
    (run,) = seen.runs
    assert (run.name, run.state, run.round, run.rounds, run.sites) == ("trial", "running", 2, 7, "1/2")
    assert run.lost == "south (policy_hours: the order's time is 12:00)"
    console = Console(width=120, file=StringIO())
    for table in tables(seen):
        console.print(table)
    text = console.file.getvalue()
    assert "(3 h ago)" in text
    assert "2/7" in text
    assert "the order's time is 12:00" in text


def test_a_site_that_never_came_is_told_from_one_that_went(home, link):
    seen = look(home, link)
    assert {site.state for site in seen.sites} == {"never seen"}
    assert json.loads(home.roster.read_text())["sites"][0]["enrolled"] == seen.sites[0].since
