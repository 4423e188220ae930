"""The whole of it once: a federation of three hospitals on loopback, under TLS and masks, with a power cut in round 2,
and afterwards the statistics of their cards.

`make e2e` plays it (some minutes); the ordinary suite leaves it out.
"""

import json
import re
from types import SimpleNamespace

import pytest

from client.secagg_store import SecaggStore
from client.statistics import own_card, own_numbers
from protocol.flower import free_port
from protocol.secagg.state import ENDED
from protocol.statistics import Statistics, folded
from server.cli_run import LOSSES
from tests.e2e.deployment import Started, call, lines_of, wait_for
from tests.e2e.one_site import change
from tests.e2e.three_sites import SITES, STRANGER, Federation, say, trains

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1800)]

LOST = "hospital-2"
RUN = (
    *("experiment=smoke", "model=tiny", "run_id=trial", "pretrain.batch_size=8", "secagg.mode=required"),
    *("federation.rounds=3", "federation.local_steps=2", "federation.min_sites=2", "federation.round_timeout_s=200"),
)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Everything that happened, for the tests to look at."""
    place = tmp_path_factory.mktemp("federation")
    federation = Federation(place)
    hub, folders = federation.hub, federation.folders
    told = SimpleNamespace(place=place, hub=hub, folders=folders, run=hub / "runs" / "trial")
    try:
        say("the server starts")
        federation.start_server()
        say("a fourth site that nobody enrolled tries to get in")
        told.refused_start = call("mumc-site", "start", folders[STRANGER], code=2)
        told.refused_join = call(
            "mumc-site", "join", folders[STRANGER], hub / "sites" / f"{SITES[0]}.join.json", "--yes", code=2
        )
        intruder = knock(place, hub, folders[STRANGER])
        say("three sites connect; each rehearses by itself")
        federation.connect_all()
        told.intruder = intruder.text
        intruder.stop()
        say("a run of three rounds under masks")
        run = federation.run(*RUN)
        wait_for(
            lambda: f"order of round 2 at {LOST}\n{run.text}",
            lambda: run.process.poll() is not None or trains(folders[LOST], "trial", 2),
            seconds=600,
        )
        say(f"round 2: the power of {LOST} is cut, and it starts again")
        federation.started[LOST].crash()
        federation.connect(LOST)
        told.status_before = federation.status()
        told.code = run.process.wait(900)
        told.printed = run.text
        say(told.printed)
        told.status = federation.status()
        say("the engineers approve their cards and let the counts into a sum, and the operator asks for it")
        for site in SITES:
            call("mumc-site", "card", folders[site], "--approve", "--yes", "--person", "engineer")
            change(folders[site] / "site.yaml", "evaluate.vqa]", "evaluate.vqa, query.statistics]")
        told.statistics = call("mumc-server", "statistics", hub, timeout=400)
        say(told.statistics)
        told.cards = {site: call("mumc-site", "card", folders[site]) for site in SITES}
        told.stopped = federation.stop()
        yield told
    finally:
        federation.crash()


def knock(place, hub, folder):
    """Flower's own client, with a key that is not enrolled."""
    address = json.loads((hub / "sites" / f"{SITES[0]}.join.json").read_text())["address"]
    return Started(
        place / "intruder.log",
        *("flower-supernode", "--superlink", address),
        *("--root-certificates", hub / "keys" / "ca.crt"),
        *("--auth-supernode-private-key", folder / "keys" / "auth.key"),
        *("--port", free_port(), "--max-retries", 3),
    )


def test_the_run_comes_to_its_end_and_says_that_it_lost_a_site(story):
    assert story.code == LOSSES, story.printed
    lost = f"Sites were lost: {LOST} (1 round)."
    assert f"trial has finished, and not every site was in all of it: {lost}" in story.printed
    (run,) = [run for run in story.status["runs"] if run["name"] == "trial"]
    assert (run["state"], run["details"]) == ("finished:with losses", lost)


def test_a_site_that_is_not_enrolled_gets_nowhere(story):
    assert "this site has not joined a federation" in story.refused_start
    assert "hospital-1" in story.refused_join
    assert "Failed to activate SuperNode" in story.intruder, story.intruder
    assert STRANGER not in story.printed


def test_every_round_is_under_masks_and_the_lost_site_is_missing_in_the_second_alone(story):
    rounds = [line for line in lines_of(story.run / "journal.jsonl") if line["sites_merged"]]
    assert [line["round"] for line in rounds] == [1, 2, 3]
    assert [line["merged"] for line in rounds] == [list(SITES), [site for site in SITES if site != LOST], list(SITES)]
    assert all(line["secagg"]["threshold"] == 2 for line in rounds)
    assert rounds[1]["secagg"]["absent"][LOST]["stage"] == "mask"


def test_the_report_names_the_absence(story):
    report = (story.run / "report.md").read_text()
    assert f"| {LOST} | 2 of 3 | round 2: flower_5: the connection to the site was lost (stage mask) |" in report
    assert report in story.printed
    for site in SITES:
        assert re.search(rf"\| {site} \| \d\.\d+ \| 12 \|", report), report


def test_every_site_is_online_at_the_end(story):
    assert {site["name"]: site["state"] for site in story.status["sites"]} == dict.fromkeys(SITES, "online")


def test_the_logs_of_both_ends_hold(story):
    call("mumc-server", "log", "verify", story.hub)
    for site in SITES:
        call("mumc-site", "log", "verify", story.folders[site])


def test_no_secret_of_a_round_is_left(story):
    for site in SITES:
        state = SecaggStore.of(story.folders[site], "trial").state()
        assert state["stage"] == ENDED
        assert state.keys() == {"version", "session", "stage", "revealed"}
        found = sorted(story.folders[site].rglob("*secagg*"))
        assert [path.name for path in found] == ["secagg.json"] * 2, "of the run, and of the statistics"
        assert {json.loads(path.read_text())["state"]["stage"] for path in found} == {ENDED}


def test_the_statistics_are_the_sum_of_the_cards_without_small_cells_and_every_site_has_them(story):
    (run,) = story.hub.glob("runs/statistics-*")
    cards = [own_numbers(own_card(story.folders[site])) for site in SITES]
    summed = folded([sum(column) for column in zip(*cards, strict=True)])
    told = Statistics.from_file((run / "statistics.json").read_bytes())
    assert told == Statistics.of(summed, run_id=run.name, sites=3, made=told.made)
    assert f"3 sites together, {told.made}; counts rounded down to tens, small ones withheld" in story.statistics
    assert sum(told.counts["questions by answer type"].values()) >= 120
    for site in SITES:
        kept = story.folders[site] / "state" / "card" / "federation.json"
        assert kept.read_bytes() == (run / "statistics.json").read_bytes()
        assert "questions by answer type: " in story.cards[site], "the site beside the federation"


def test_everything_stops_when_it_is_told_to(story):
    assert story.stopped == dict.fromkeys(("server", *SITES), 0)
