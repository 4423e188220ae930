"""Whole runs of statistics: four sites with keys, cards and logs, and a server that opens nothing but their sum."""

import json
from datetime import timedelta

import numpy as np
import pytest

import client.statistics
from client.cli_log import line_words
from client.datacard.card import build
from client.datacard.facts import NotMeasured
from client.log import site_log_file
from client.log_check import check_site_log
from client.secagg_store import VECTOR, SecaggStore
from mumc_model.errors import ConfigError
from protocol.records import reply_from_record
from protocol.secagg import site as site_stages
from protocol.secagg.state import ENDED
from protocol.statistics import VALUES, Statistics
from server.errors import FederationError
from server.home import Home
from server.output import RESULT
from server.report_page import write_reports
from server.round_folder import RoundFolder
from server.seal import Post
from server.statistics import overrides_for
from server.statistics_run import FILE, counting_terms, run_statistics
from tests.client.counted import ALL, Counted, approve, consent, plain_sum, shorten, steps
from tests.client.masked import KilledError, config

REST = ALL[:3]


@pytest.fixture
def opened(monkeypatch):
    """Every sum that a server opens, exactly."""
    from server import statistics_run

    sums, total = [], statistics_run.total

    def look(mean, sites):
        sums.append(total(mean, sites))
        return sums[-1]

    monkeypatch.setattr(statistics_run, "total", look)
    return sums


def test_the_server_opens_exactly_the_plain_sum_and_every_site_gets_what_may_be_told_of_it(counting_folder, opened):
    sent = []
    played = Counted(counting_folder, change=lambda node, reply: sent.append(reply_from_record(reply)) or reply)
    assert (played.error, opened) == (None, [plain_sum(counting_folder)])
    assert played.published == Statistics.of(
        plain_sum(counting_folder), run_id="counts", sites=4, made=played.published.made
    )
    written = (played.folder / FILE).read_bytes()
    for site in ALL:
        root = counting_folder / site
        assert (root / "state" / "card" / "federation.json").read_bytes() == written
        assert steps(root) == [("counts", "masked"), ("counts", "opened"), ("counts", "told")]
        assert check_site_log(root).whole
        assert not isinstance(build(root).skew, NotMeasured)
        assert not list(root.glob("state/runs/*/*.safetensors"))
    vectors = [array for _, arrays in sent for array in arrays.values()]
    assert [(array.dtype.name, array.shape) for array in vectors] == [("uint32", (VALUES,))] * 4
    assert {value for report, _ in sent for value in report.metrics} == set()
    assert not (played.folder / "round").exists(), "what the exact sum follows from is gone"


def test_the_run_leaves_a_journal_line_and_a_report_and_names_who_is_missing(counting_folder, monkeypatch):
    monkeypatch.setattr("server.statistics_run.write_reports", write_reports)
    played = Counted(counting_folder, lost={("dogwood", 1, 1, "share"), ("cedar", 2, 1, "query.statistics")})
    (record,) = played.records
    assert str(record).startswith("round   1 | sites 3/4 | masked, threshold 3 | ")
    assert record.secagg["absent"] == {"dogwood": {"stage": "share", "code": "flower_5"}}
    report = (played.folder / "report.md").read_text()
    assert "1 of 1 rounds were merged, under masks, threshold 3; 0 with all 4 sites." in report
    assert "Sites were lost: dogwood (1 round)." in report
    assert "Nothing came after the last round from cedar" in report
    assert sorted(json.loads((played.folder / RESULT).read_text())["vqa"]["sites"]) == ["ash", "birch"]
    assert not (counting_folder / "cedar" / "state" / "card" / "federation.json").exists()


@pytest.mark.parametrize(("stage", "sites"), [("mask", REST), ("unmask", ALL)])
def test_a_site_that_drops_out_leaves_the_sum_of_the_others_exact(counting_folder, opened, stage, sites):
    played = Counted(counting_folder, lost={("dogwood", 1, 1, stage)})
    assert opened == [plain_sum(counting_folder, sites)]
    assert played.published.sites == len(sites)


def test_below_three_sites_nothing_is_opened_and_the_next_attempt_sums_all(counting_folder, opened):
    played = Counted(counting_folder, lost={(site, 1, 1, "mask") for site in ("ash", "birch")})
    assert [record.sites_merged for record in played.records] == [0, 4]
    assert opened == [plain_sum(counting_folder)]
    void = Counted(counting_folder, attempts=1, run_id="other", lost={(s, 1, 1, "share") for s in ("ash", "birch")})
    assert "round 1, attempt 1 is void: 2 of 4 sites answered" in str(void.error)
    assert str(void.error).endswith("Nothing was opened")
    assert len(opened) == 1
    assert not (void.folder / FILE).exists()


@pytest.mark.parametrize("lie", [-1000, 2_000_000_000])
def test_numbers_of_a_site_that_cannot_be_counts_end_the_run_in_words(counting_folder, monkeypatch, lie):
    """No site's client sends such words; one that another has written may."""
    encode, own, at_work = site_stages.encode_packed, client.statistics.own_numbers, []

    def lying(update, *rest):
        words, clipped = encode(update, *rest)
        words[0] = np.uint32(lie % 2**32) if at_work[-1] == "birch" else words[0]
        return words, clipped

    monkeypatch.setattr(client.statistics, "own_numbers", lambda card: at_work.append(card.site) or own(card))
    monkeypatch.setattr(site_stages, "encode_packed", lying)
    played = Counted(counting_folder)
    assert isinstance(played.error, FederationError)
    assert "a site sent numbers that cannot be counts: 1 of 82 in the sum are below 0 or above" in str(played.error)
    assert str(played.error).endswith("Lost: none. Nothing is published")
    assert [(record.sites_merged, record.secagg["revealed"]) for record in played.records] == [(0, True)]
    assert not (played.folder / "round").exists()
    again = Counted(counting_folder, resume=True)
    assert "the sites have revealed what opens the sum of this run" in str(again.error)
    assert again.grid.asked == []


@pytest.mark.parametrize("stage", ["agree", "unmask"])
def test_after_a_void_attempt_no_masked_words_stay_at_the_server(counting_folder, stage):
    void = Counted(counting_folder, attempts=1, lost={(site, 1, 1, stage) for site in ALL[:2]})
    assert isinstance(void.error, FederationError)
    assert not (void.folder / "round").exists()
    assert not list(void.folder.rglob("*.safetensors"))
    folder = RoundFolder(void.folder / "round")
    folder.keep_masks({"left": "by a server that was killed before it had cleared them"})
    again = Counted(counting_folder, attempts=2, resume=True)
    assert (again.published is None) == (stage == "unmask"), "who has revealed takes part in no other attempt"
    assert not folder.folder.exists()


def killed_run(folder, **faults):
    with pytest.raises(KilledError):
        Counted(folder, **faults)


@pytest.mark.parametrize("place", [3, 14, 24])
def test_a_server_that_is_killed_midway_goes_on_and_no_site_masks_its_counts_twice(
    counting_folder, opened, monkeypatch, place
):
    keep, left = RoundFolder.keep_masks, [place]

    def mortal(self, values):
        left[0] -= 1
        if left[0] == -1:
            raise KilledError
        keep(self, values)

    monkeypatch.setattr(RoundFolder, "keep_masks", mortal)
    killed_run(counting_folder)
    again = Counted(counting_folder, resume=True)
    assert (again.error, opened[-1]) == (None, plain_sum(counting_folder))
    for site in ALL:
        assert steps(counting_folder / site).count(("counts", "masked")) == 1


def test_a_server_that_is_killed_before_it_has_published_asks_no_site_for_its_counts_again(
    counting_folder, opened, monkeypatch
):
    from server import statistics_run

    write = statistics_run.write_whole

    def mortal(path, content):
        if path.name == FILE:
            raise KilledError
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(statistics_run, "write_whole", mortal)
        killed_run(counting_folder)
    again = Counted(counting_folder, resume=True)
    assert opened == [plain_sum(counting_folder)] * 2
    assert {what for *_, what in again.grid.asked} == {"query.statistics"}
    assert len((again.folder / "journal.jsonl").read_text().splitlines()) == 1


def test_the_same_sites_with_the_same_counts_are_summed_again_at_any_time(counted_folder, opened):
    assert Counted(counted_folder, run_id="again").error is None
    assert opened == [plain_sum(counted_folder)]


def test_a_site_whose_counts_have_changed_waits_for_a_quarter(counted_folder, opened, monkeypatch):
    shorten(counted_folder / "ash", 1)
    approve(counted_folder / "ash")
    again = Counted(counted_folder, attempts=1, run_id="again")
    assert isinstance(again.error, FederationError)
    assert again.records[0].refused["ash"] == "policy_statistics_again"
    assert opened == [], "nor do the others open a sum without ash"
    monkeypatch.setattr("client.datacard.sums.QUARTER", timedelta(days=-1))
    later = Counted(counted_folder, run_id="later")
    assert (later.error, opened[-1]) == (None, plain_sum(counted_folder))


def test_a_sum_without_one_of_the_sites_of_the_last_is_not_opened(counted_folder, opened):
    lying = Counted(counted_folder, attempts=1, run_id="less", lost={("dogwood", 1, 1, "mask")})
    assert lying.published is None
    again = {"stage": "agree", "code": "policy_statistics_again"}
    assert [lying.records[0].secagg["absent"][site] for site in REST] == [again] * 3
    assert "Lost: ash, birch, cedar (policy_statistics_again), dogwood (flower_5" in str(lying.error)
    assert opened == []
    assert ("less", "opened") not in steps(counted_folder / "ash")


def test_a_federation_of_other_sites_is_another_sum(counted_folder, opened):
    fewer = Counted(counted_folder, attempts=1, run_id="fewer", sites=REST)
    assert set(fewer.records[0].refused.values()) == {"policy_statistics_again"}
    assert opened == []


def test_sites_that_have_not_agreed_are_named_and_cost_only_their_place(counting_folder, opened):
    consent(counting_folder / "dogwood", actions=["train.pretrain"])
    played = Counted(counting_folder)
    assert opened == [plain_sum(counting_folder, REST)]
    assert played.records[0].reasons["dogwood"] == (
        '"the order\'s action is query.statistics, and this site follows train.pretrain (policy.runs.actions)"'
    )


def test_the_log_of_a_site_shows_in_words_what_it_was_in(counted_folder):
    shown = [line_words(entry)[21:] for entry in site_log_file(counted_folder / "ash").entries()]
    assert "counts: the counts go under masks into a sum among ash, birch, cedar, dogwood" in shown
    assert "counts: this site helps to open the sum over ash, birch, cedar, dogwood" in shown
    assert "counts: statistics came; state/site.log says whether they are kept" in shown
    assert any(line.startswith("dr-ash approved the public data card ") for line in shown)
    assert "counts round 1.1 query.statistics_mask  order, 0 steps, 0 bytes came" in shown


def test_a_run_is_refused_where_nobody_is_enrolled_or_too_few_are(counting_folder):
    with pytest.raises(ConfigError, match="summed over enrolled sites"):
        run_statistics(None, config("federation.rounds=0", "federation.final=statistics"))
    few = Post(Home.open(counting_folder / "hub"), ALL[:2])
    with pytest.raises(ConfigError, match="takes at least 3 sites, of which 0 may collude, and 2 take part"):
        counting_terms(config(*overrides_for(ALL)), few)


def test_a_training_at_work_beside_it_keeps_its_session(counting_folder):
    store = SecaggStore.of(counting_folder / "ash", "training")
    store.keep({"stage": "share"}, None)
    store.keep_vector(np.zeros(3, np.uint32))
    assert Counted(counting_folder).error is None
    assert store.state() == {"stage": "share"}
    assert (counting_folder / "ash" / "state" / "runs" / "training" / VECTOR).is_file()
    assert SecaggStore.of(counting_folder / "ash", "counts").state()["stage"] == ENDED
