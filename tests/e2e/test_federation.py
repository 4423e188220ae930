"""The whole of it once: a federation of three hospitals on loopback, under TLS and masks, with a power cut in round 2.

`make e2e` plays it (some minutes); the ordinary suite leaves it out.
"""

import json
import re
from types import SimpleNamespace

import pytest

from client.secagg_store import SecaggStore
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from protocol.flower import free_port
from protocol.secagg.state import ENDED
from tests.e2e.deployment import Started, call, lines_of, wait_for

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1800)]

SITES = ("hospital-1", "hospital-2", "hospital-3")
STRANGER = "hospital-4"
LOST = "hospital-2"
RUN = (
    *("experiment=smoke", "model=tiny", "run_id=trial", "pretrain.batch_size=8", "secagg.mode=required"),
    *("federation.rounds=3", "federation.local_steps=2", "federation.min_sites=2", "federation.round_timeout_s=200"),
)


def say(text):
    print(f"\n-- {text}", flush=True)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Everything that happened, for the tests to look at."""
    place = tmp_path_factory.mktemp("federation")
    hub = place / "hub"
    folders = dict(zip((*SITES, STRANGER), hospitals(place / "sites"), strict=True))
    told = SimpleNamespace(place=place, hub=hub, folders=folders, run=hub / "runs" / "trial")
    started = {}

    def connect(site):
        started[site] = Started(place / f"{site}.log", "mumc-site", "start", folders[site], "--supervise")

    try:
        found(hub, folders)
        say("the server starts")
        started["server"] = Started(place / "server.log", "mumc-server", "start", hub, "--supervise")
        wait_for("registered sites", lambda: started["server"].text.count("may connect") == 3)
        say("a fourth site that nobody enrolled tries to get in")
        told.refused_start = call("mumc-site", "start", folders[STRANGER], code=2)
        told.refused_join = call(
            "mumc-site", "join", folders[STRANGER], hub / "sites" / f"{SITES[0]}.join.json", "--yes", code=2
        )
        intruder = knock(place, hub, folders[STRANGER])
        say("three sites connect; each rehearses by itself")
        for site in SITES:
            connect(site)
        wait_for("rehearsals", lambda: rehearsed(hub) == set(SITES))
        told.intruder = intruder.text
        intruder.stop()
        say("a run of three rounds under masks")
        run = Started(place / "run.log", "mumc-server", "run", hub, *RUN)
        wait_for(
            lambda: f"order of round 2 at {LOST}\n{run.text}",
            lambda: run.process.poll() is not None or trains(folders[LOST], 2),
            seconds=600,
        )
        say(f"round 2: the power of {LOST} is cut, and it starts again")
        started[LOST].crash()
        connect(LOST)
        told.status_before = json.loads(call("mumc-server", "status", hub, "--json"))
        told.code = run.process.wait(900)
        told.printed = run.text
        say(told.printed)
        told.status = json.loads(call("mumc-server", "status", hub, "--json"))
        told.stopped = {name: one.stop() for name, one in reversed(started.items())}
        yield told
    finally:
        for one in started.values():
            if one.process.poll() is None:
                one.crash()


def hospitals(place):
    counts = {"images": 24, "train_questions": 24, "val_questions": 10, "test_questions": 12}
    return write_hospitals(PhantomConfig(hospitals=4, image_size=64, **counts), place, 0)


def found(hub, folders):
    """Make the federation, and enrol three of the four."""
    say("the operator makes a federation, the engineers their sites, three join")
    port = free_port()
    call("mumc-server", "init", hub, "--name", "lung", "--address", f"127.0.0.1:{port}", "--health-port", free_port())
    settings = hub / "federation.yaml"
    settings.write_text(settings.read_text().replace("colluding: 1", "colluding: 0"))
    for folder in folders.values():
        call("mumc-site", "init", folder, "--units", 30)
        limits = folder / "site.yaml"
        limits.write_text(limits.read_text().replace("colluding: 1", "colluding: 0"))
    for site in SITES:
        call("mumc-server", "enroll", hub, folders[site] / f"enrolment-{site}.json", "--yes")
    for site in SITES:
        call("mumc-site", "join", folders[site], hub / "sites" / f"{site}.join.json", "--yes")


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


def rehearsed(hub):
    """The sites that have rehearsed to the end."""
    results = [json.loads(path.read_text()) for path in hub.glob("runs/rehearsal-*/result.json")]
    return {site for result in results for site in result["vqa"]["sites"]}


def trains(folder, round):
    """Whether a site has the order to train in this round."""
    return any(
        line["kind"] == "order" and (line["run"], line["stage"], line["round"]) == ("trial", "train.pretrain", round)
        for line in lines_of(folder / "state" / "log.jsonl")
    )


def test_the_run_ends_well(story):
    assert story.code == 0, story.printed
    assert [run["state"] for run in story.status["runs"] if run["name"] == "trial"] == ["finished:completed"]


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
        assert [path.name for path in story.folders[site].rglob("*secagg*")] == ["secagg.json"]


def test_everything_stops_when_it_is_told_to(story):
    assert story.stopped == dict.fromkeys(("server", *SITES), 0)
