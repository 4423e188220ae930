"""The statistics at the operator's terminal."""

import io
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from configs.compose import compose
from configs.loader import load
from mumc_model.errors import ConfigError
from protocol.labels import TABLES
from protocol.statistics import Statistics, folded
from server.cli_run import LOSSES
from server.config import RunConfig
from server.output import REPORT, RESULT, result_json, write_config
from server.statistics import as_table, caption, overrides_for
from server.statistics_run import FILE
from server.submit import prepare, unfinished
from server.tally import Tally
from tests.federation import found
from tests.server.link import Link


def shown(found):
    console = Console(file=io.StringIO(), width=100)
    console.print(as_table(found))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def summed():
    """What was published of three sites with images of three modalities, few of them x-rays."""
    numbers = {"ct": 123, "mr": 41, "x-ray": 4}
    labels = [(name, label) for name, labels in TABLES.items() for label in labels]
    counts = [numbers.get(label, 0) if name == "images by modality" else 0 for name, label in labels]
    counts[-3] = 50
    return Statistics.of(folded(counts + counts), run_id="statistics-1", sites=3, made="2026-11-27")


def test_the_table_has_every_label_that_is_there_and_says_which_counts_are_withheld():
    found = summed()
    lines = [line.split() for line in shown(found)]
    assert lines == [
        ["label", "count", "share"],
        ["images", "by", "modality", "x-ray", "withheld"],
        ["ct", "120", "100", "%"],
        ["mr", "withheld"],
        ["questions", "by", "split", "train", "50", "100", "%"],
    ]
    assert caption(found) == "3 sites together, 2026-11-27; counts rounded down to tens, small ones withheld"


def test_a_run_of_statistics_trains_nothing_and_asks_the_sites_that_are_named():
    config = load(RunConfig, compose("run", overrides_for(["north", "south", "east"], ["federation.wait_s=9"])))
    federation = config.federation
    assert (federation.rounds, federation.final, federation.sites) == (0, "statistics", 3)
    assert (federation.min_sites, federation.only, federation.wait_s) == (3, ("north", "south", "east"), 9)
    with pytest.raises(ConfigError, match="over at least 3 sites, and 2 are named or enrolled"):
        overrides_for(["north", "south"])


def test_a_sum_that_came_to_nothing_is_not_what_is_gone_on_with_unless_it_is_named(tmp_path):
    home = found(tmp_path, "north", "south", "east")
    training = prepare(home, ["run_id=training"])
    write_config(home.runs / "training", training)
    counts = prepare(home, [*overrides_for(["north", "south", "east"]), "run_id=counts"])
    write_config(home.runs / "counts", counts)
    assert unfinished(home, []).run_id == "training"
    assert unfinished(home, ["run_id=counts"]).federation.final == "statistics"


def test_the_command_shows_what_was_published_and_who_was_lost(tmp_path, called, monkeypatch):
    home = found(tmp_path, "north", "south", "east")
    link = Link()

    def end(asked, flower_id, config, show):
        folder = Path(config.output_dir)
        (folder / FILE).write_bytes(summed().to_file())
        (folder / REPORT).write_text("# the report\n")
        tally = Tally(refused={"east": "offline"})
        result = result_json(config, config.run_id, [], tally, enrolled=["north", "south", "east"])
        (folder / RESULT).write_bytes(result)
        return replace(asked.runs()[0], status="finished:completed")

    monkeypatch.setattr("server.submit.installed_bundle", lambda: b"the bundle")
    monkeypatch.setattr("server.submit.follow", end)
    monkeypatch.setattr("server.start.control", lambda _: nullcontext(link))
    code, out, err = called("statistics", str(home.root))
    assert (code, out.splitlines()[:1]) == (LOSSES, [caption(summed())]), err
    assert "images by modality  x-ray  withheld" in out
    assert out.endswith("# the report\n")
    assert "statistics.json\n" in err
    assert "Nothing came after the last round from east" in err


def test_statistics_of_too_few_sites_are_refused_before_anything_is_submitted(tmp_path, called):
    home = found(tmp_path, "north", "south")
    code, out, err = called("statistics", str(home.root))
    assert (code, out) == (2, "")
    assert "a sum of counts is over at least 3 sites, and 2 are named or enrolled; enrol more" in err
