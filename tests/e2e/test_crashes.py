"""Real signals at real processes: the server's programs and a site's die, freeze and come back, and no bit is lost.

What a process can leave behind at any step on its disk, tests/server/test_resume.py goes through one by one; here the
processes, the SuperLink and the sites are real.
"""

import signal
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from server.cli_run import LOSSES
from tests.e2e.deployment import lines_of, wait_for
from tests.e2e.one_site import change
from tests.e2e.three_sites import SITES, Federation, say, trains

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(2400)]

SLOW = "hospital-2"
RUN = (
    *("experiment=smoke", "model=tiny", "pretrain.batch_size=8", "strategy=fedadam", "federation.final=none"),
    *("federation.rounds=2", "federation.local_steps=2", "federation.min_sites=2", "federation.wait_s=200"),
)
PLAIN, MASKED = ("secagg.mode=off",), ("secagg.mode=required", "federation.rounds=1")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Everything that happened, for the tests to look at."""
    federation = Federation(tmp_path_factory.mktemp("crashes"))
    for site in SITES:
        change(federation.folders[site] / "site.yaml", "secure_aggregation: required", "secure_aggregation: allowed")
    told = SimpleNamespace(hub=federation.hub, folders=federation.folders)
    try:
        federation.start_server()
        federation.connect_all()
        say("a run that nothing happens to")
        told.whole = federation.run(*RUN, *PLAIN, "run_id=whole").process.wait(600)
        say("the same run: its program is killed in round 1, the SuperLink in round 2")
        told.killed = federation.run(*RUN, *PLAIN, "run_id=killed")
        wait_for("an update on the disk", lambda: spooled(federation.hub, "killed"))
        told.killed_program = kill(federation, "flwr-serverapp")
        told.first = told.killed.process.wait(300)
        again = federation.run("--resume")
        wait_for("round 2 at a site", lambda: trains(federation.folders[SITES[0]], "killed", 2), seconds=300)
        told.killed_link = kill(federation, "server.superlink")
        again.process.wait(300)
        again = federation.run("--resume", "run_id=killed")
        told.third, told.printed = again.process.wait(600), again.text
        say("under masks: its program is killed once masked words are on the disk")
        told.masked_whole = federation.run(*RUN, *MASKED, "run_id=masked-whole").process.wait(600)
        masked = federation.run(*RUN, *MASKED, "run_id=masked")
        wait_for("masked words on the disk", lambda: spooled(federation.hub, "masked"), seconds=300)
        kill(federation, "flwr-serverapp")
        masked.process.wait(300)
        told.masked = federation.run("--resume", "run_id=masked").process.wait(600)
        say(f"the power of {SLOW} is cut while it trains, and it starts again")
        back = federation.run(*RUN, *PLAIN, "run_id=back", "federation.rounds=1", "federation.rejoin_s=200")
        wait_for("round 1 at the site", lambda: trains(federation.folders[SLOW], "back", 1), seconds=300)
        federation.started[SLOW].crash()
        federation.connect(SLOW)
        told.back, told.back_printed = back.process.wait(600), back.text
        say(f"{SLOW} freezes in round 1, and is killed and started again later")
        waits = ("federation.round_timeout_s=40", "federation.rejoin_s=200", "federation.rounds=3")
        slow = federation.run(*RUN, *PLAIN, *waits, "run_id=slow")
        wait_for("round 1 at the site", lambda: trains(federation.folders[SLOW], "slow", 1), seconds=300)
        freeze(federation.started[SLOW])
        wait_for("the end of round 1", lambda: lines_of(told.hub / "runs" / "slow" / "journal.jsonl"), seconds=300)
        federation.started[SLOW].crash()
        federation.connect(SLOW)
        told.slow, told.slow_printed = slow.process.wait(600), slow.text
        told.slow_status = next(run for run in federation.status()["runs"] if run["name"] == "slow")
        told.stopped = federation.stop()
        yield told
    finally:
        federation.crash()


def spooled(hub, run):
    return list((hub / "runs" / run / "round" / "updates").glob("*.safetensors"))


def kill(federation, program):
    """Kill the processes of one of its programs, as the kernel does when memory runs out; how many there were."""
    family = psutil.Process(federation.started["server"].process.pid).children(recursive=True)
    found = [process for process in family if any(program in word for word in process.cmdline()[:3])]
    for process in found:
        process.kill()
    psutil.wait_procs(found, timeout=30)
    return len(found)


def freeze(started):
    """Stop a command and all that it started, without its knowing."""
    for process in psutil.Process(started.process.pid).children(recursive=True):
        process.send_signal(signal.SIGSTOP)


def weights(story, run):
    return load_file(story.hub / "runs" / run / "weights.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def journal(story, run):
    return [
        (line["round"], line["attempt"], line["merged"])
        for line in lines_of(story.hub / "runs" / run / "journal.jsonl")
    ]


def test_a_run_that_nothing_happened_to_is_a_plain_success(story):
    assert story.whole == 0
    assert journal(story, "whole") == [(number, 1, list(SITES)) for number in (1, 2)]


def test_the_killed_run_ends_with_an_error_that_says_how_to_go_on(story):
    assert story.killed_program
    assert story.first != 0
    assert "--resume run_id=killed" in story.killed.text


def test_after_both_deaths_the_weights_are_bit_for_bit_those_of_the_whole_run(story):
    assert story.killed_link
    assert story.third == 0, story.printed
    assert same(weights(story, "killed"), weights(story, "whole"))
    assert journal(story, "killed") == journal(story, "whole")


def test_a_masked_round_goes_on_to_the_same_sum(story):
    assert (story.masked_whole, story.masked) == (0, 0)
    assert same(weights(story, "masked"), weights(story, "masked-whole"))
    assert journal(story, "masked") == [(1, 1, list(SITES))]


def test_a_frozen_site_is_named_with_what_is_known_of_it_and_the_run_is_no_plain_success(story):
    assert story.slow == LOSSES, story.slow_printed
    first, *_, last = lines_of(story.hub / "runs" / "slow" / "journal.jsonl")
    assert first["merged"] == [site for site in SITES if site != SLOW]
    assert first["refused"] == {SLOW: "no_answer"}
    assert "it is slow, or its task hangs" in first["reasons"][SLOW]
    assert last["merged"] == list(SITES)
    assert story.slow_status["state"] == "finished:with losses"
    assert f"Sites were lost: {SLOW} (" in story.slow_printed


def test_a_site_that_is_killed_while_it_trains_redoes_the_round_and_is_counted_once(story):
    assert story.back == 0, story.back_printed
    (line,) = lines_of(story.hub / "runs" / "back" / "journal.jsonl")
    assert (line["attempt"], line["merged"], line["refused"]) == (1, list(SITES), {})
    whole = lines_of(story.hub / "runs" / "whole" / "journal.jsonl")[0]
    assert (line["examples"], line["losses"], line["norms"]) == (whole["examples"], whole["losses"], whole["norms"])
    asked = [
        (entry["run"], entry["round"], entry["attempt"])
        for entry in lines_of(story.folders[SLOW] / "state" / "log.jsonl")
        if entry["kind"] == "order" and entry["run"] == "back"
    ]
    assert asked == [("back", 1, 1)] * 2


def test_every_site_s_work_is_counted_once(story):
    for run in ("whole", "killed"):
        for line in lines_of(story.hub / "runs" / run / "journal.jsonl"):
            assert line["examples"] == lines_of(story.hub / "runs" / "whole" / "journal.jsonl")[0]["examples"]


def test_everything_stops_when_it_is_told_to(story):
    assert story.stopped == dict.fromkeys(("server", *SITES), 0)
