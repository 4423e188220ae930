"""A site at the end of a slow line that loses segments, and that is cut in the middle of an upload: nothing is lost."""

import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from protocol.flower import free_port
from server.home import Home
from server.joining import publish
from server.roster import SiteRegister
from tests.e2e import bad_network
from tests.e2e.deployment import Started, call, lines_of, wait_for
from tests.e2e.one_site import change
from tests.e2e.three_sites import SITES, Federation, say

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(900)]

FAR = "hospital-2"
VALUES = 513_827
"""Of the weights that `tiny` shares, each in 4 bytes."""
CUT_AFTER = 800_000
RUN = (
    *("experiment=smoke", "model=tiny", "pretrain.batch_size=8", "secagg.mode=off", "codec.kind=float32"),
    *("federation.rounds=1", "federation.local_steps=2", "federation.min_sites=3", "federation.final=none"),
)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The same round twice, the second time over the bad line."""
    federation = Federation(tmp_path_factory.mktemp("line"))
    told = SimpleNamespace(hub=federation.hub, folder=federation.folders[FAR])
    for folder in federation.folders.values():
        change(folder / "site.yaml", "secure_aggregation: required", "secure_aggregation: allowed")
    try:
        line = federation.started["line"] = far_away(federation)
        federation.start_server()
        federation.connect_all()
        say("a run over a good line")
        good = federation.run(*RUN, "run_id=good")
        told.good, told.good_printed = good.process.wait(300), good.text
        say(f"the line of {FAR} turns bad, and is cut in its upload")
        line.process.send_signal(signal.SIGUSR1)
        wait_for("the bad line", lambda: "bad" in events(line))
        bad = federation.run(*RUN, "run_id=bad")
        told.bad, told.bad_printed = bad.process.wait(300), bad.text
        told.stopped = federation.stop()
        told.events = events(line)
        yield told
    finally:
        federation.crash()


def far_away(federation):
    """The line at work, and the site's join file names its end."""
    home, port = Home.open(federation.hub), free_port()
    server_port = home.config().port
    change(home.settings, f'address: "127.0.0.1:{server_port}"', f'address: "127.0.0.1:{port}"')
    with home.locked():
        publish(home, SiteRegister.read(home))
    call("mumc-site", "join", federation.folders[FAR], home.join_file(FAR), "--yes")
    program = Path(bad_network.__file__)
    line = Started(federation.place / "line.log", "python", program, port, server_port, CUT_AFTER)
    wait_for(lambda: f"line\n{line.text}", lambda: "listening" in events(line))
    return line


def events(line):
    """What the line has said, by the name of the event."""
    return {said.pop("event"): said for said in lines_of(line.log)}


def journal(story, run):
    return lines_of(story.hub / "runs" / run / "journal.jsonl")


def test_both_runs_are_plain_successes(story):
    assert (story.good, story.bad) == (0, 0), story.bad_printed


def test_every_site_is_merged_exactly_once_at_the_first_attempt(story):
    for run in ("good", "bad"):
        (line,) = journal(story, run)
        assert (line["round"], line["attempt"], line["merged"], line["refused"]) == (1, 1, list(SITES), {})
    assert journal(story, "bad")[0]["examples"] == journal(story, "good")[0]["examples"]


def test_the_weights_are_bit_for_bit_those_of_a_good_line(story):
    good, bad = (load_file(story.hub / "runs" / run / "weights.safetensors") for run in ("good", "bad"))
    assert good.keys() == bad.keys()
    assert sum(weight.size for weight in good.values()) == VALUES
    assert all(np.array_equal(good[name], bad[name]) for name in good)


def test_the_cut_fell_in_the_middle_of_the_upload_and_all_of_it_came_after(story):
    cut, end = story.events["cut"], story.events["end"]
    assert CUT_AFTER <= cut["sent"] < 4 * VALUES
    assert cut["down"] > 4 * VALUES, "the merged weights had come before"
    assert end["up"] - cut["up"] > 4 * VALUES - cut["sent"]


def test_the_line_was_slow_and_lost_one_segment_in_twenty(story):
    end = story.events["end"]
    assert journal(story, "bad")[0]["seconds"] > (2 * 4 * VALUES) / bad_network.BYTES_PER_S
    assert abs(end["late"] / end["segments"] - bad_network.LOST) < 0.02


def test_the_site_trained_once(story):
    asked = [entry for entry in lines_of(story.folder / "state" / "log.jsonl") if entry.get("run") == "bad"]
    assert [entry["kind"] for entry in asked if entry["stage"] == "train.pretrain"] == ["order", "reply"]


def test_everything_stops_when_it_is_told_to(story):
    assert story.stopped == dict.fromkeys(("line", "server", *SITES), 0)
