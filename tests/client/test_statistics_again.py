"""Two sums whose difference would be one site's counts: a site goes into the second one, or opens it, never."""

import dataclasses
import json
from datetime import timedelta

import pytest

from client.datacard.sums import AGAIN, STALE, UNCHANGED, Sums
from client.errors import GateError
from client.keys import SiteKeys
from client.secagg_store import SecaggStore
from client.statistics import Counting, own_card, own_numbers
from protocol.messages import STAGE_ACTIONS, STATISTICS_ACTIONS, Refusal, Report
from protocol.secagg.server import Aggregator
from protocol.secagg.state import ENDED
from protocol.signing import new_key, public_hex
from server.round_folder import RoundFolder
from tests.client.counted import ALL, Counted, Liar, approve, lines, shorten, steps
from tests.client.masked import KilledError
from tests.client.test_statistics_hostile import liar_recipe

REST = ALL[:3]


@pytest.fixture
def liar(counting_folder):
    return Liar(counting_folder)


def later(monkeypatch):
    """A quarter later, as far as the sites know."""
    monkeypatch.setattr("client.datacard.sums.QUARTER", timedelta(days=-1))


def tomorrow(monkeypatch):
    monkeypatch.setattr("client.datacard.sums.DAY", timedelta(0))


@pytest.fixture
def parked(liar, counting_folder, monkeypatch):
    """What a server still has to ask for where all sites have agreed to a sum, and none has opened it."""
    with monkeypatch.context() as patched:
        patched.setattr(RoundFolder, "clear", lambda self: None)
        first = Counted(counting_folder, "parked", attempts=1, lost={(site, 1, 1, "unmask") for site in ALL})
    kept = json.loads((first.folder / "round" / "masks.json").read_text())
    accord = Aggregator.from_dict(kept["aggregator"]).accord().to_dict()
    return liar.order(STATISTICS_ACTIONS["unmask"], accord, run_id="parked")


def test_a_sum_that_was_agreed_to_is_opened_within_a_day_or_never(parked, liar, monkeypatch):
    with monkeypatch.context() as patched:
        tomorrow(patched)
        assert liar.ask("ash", parked) == Refusal(code="statistics_stale", text=STALE)
    assert isinstance(liar.ask("ash", parked), Report), "nothing else stood against it"


def test_nor_is_one_agreed_to_on_another_day_than_it_was_masked(counting_folder, monkeypatch):
    tomorrow(monkeypatch)
    played = Counted(counting_folder, attempts=1)
    assert set(played.records[0].secagg["absent"].values().__iter__().__next__().values()) == {
        "agree",
        "statistics_stale",
    }
    assert steps(counting_folder / "ash") == [("counts", "masked")]


def test_a_session_of_statistics_ends_those_that_were_left_before_they_were_opened(parked, liar, counting_folder):
    assert Counted(counting_folder).error is None
    for site in ALL:
        assert SecaggStore.of(counting_folder / site, "parked").before()["stage"] == ENDED
        assert liar.ask(site, parked).code == "wrong_stage"


def test_two_sums_over_other_sites_that_were_prepared_at_once_are_not_both_opened(
    parked, liar, counting_folder, monkeypatch
):
    """The server gets all agreements to the sum over four, opens that over three in another run, and comes back."""
    monkeypatch.setattr("client.statistics.end_other_runs", lambda *args, **kinds: None)
    second = Counted(counting_folder, "second", attempts=1, lost={("dogwood", 1, 1, "mask")})
    assert second.published.sites == 3
    for site in REST:
        assert liar.ask(site, parked) == Refusal(code="policy_statistics_again", text=AGAIN[:300])
        assert ("parked", "opened") not in steps(counting_folder / site)


def test_an_unchanged_site_opens_no_sum_over_others_however_late(counted_folder, monkeypatch):
    later(monkeypatch)
    less = Counted(counted_folder, attempts=1, run_id="less", lost={("dogwood", 1, 1, "mask")})
    assert less.published is None
    again = {"stage": "agree", "code": "policy_statistics_again"}
    assert [less.records[0].secagg["absent"][site] for site in REST] == [again] * 3
    assert lines(counted_folder / "ash", "reply")[-1]["text"] == UNCHANGED[:300]
    for site in REST:
        shorten(counted_folder / site, 1)
        approve(counted_folder / site)
    changed = Counted(counted_folder, attempts=1, run_id="changed", lost={("dogwood", 1, 1, "mask")})
    assert changed.published.sites == 3, "with other counts a quarter is enough"


def test_as_many_sites_are_not_the_same_sites(counting_folder):
    assert Counted(counting_folder, "first", lost={("dogwood", 1, 1, "mask")}).published.sites == 3
    second = Counted(counting_folder, "second", attempts=1, lost={("cedar", 1, 1, "mask")})
    assert second.published is None
    assert second.records[0].secagg["absent"]["ash"] == {"stage": "agree", "code": "policy_statistics_again"}


def test_another_key_under_a_known_name_is_another_site_for_a_quarter(counted_folder, monkeypatch):
    root, session = counted_folder / "ash", Liar(counted_folder).session()
    sums, numbers = Sums(root, SiteKeys(root).signing()), own_numbers(own_card(root))
    sums.check_masked(session, numbers)
    other = dataclasses.replace(session, keys={**session.keys, "dogwood": public_hex(new_key())})
    with pytest.raises(GateError, match="only among the same sites"):
        sums.check_masked(other, numbers)
    sums.note_masked(other, numbers)
    with pytest.raises(GateError, match="only among the same sites"):
        sums.check_opened(other, ALL)
    later(monkeypatch)
    sums.check_masked(other, numbers)
    sums.check_opened(other, ALL)


def test_the_logs_digest_of_the_counts_cannot_be_tried_out_without_the_log(counting_folder, liar):
    """The server knows the heads of the logs, and so could tell of a digest of counts alone whether it is of these."""
    found, session = [], liar.session()
    for site, run in (("ash", "one"), ("ash", "two"), ("birch", "one")):
        root = counting_folder / site
        Sums(root, SiteKeys(root).signing()).note_masked(dataclasses.replace(session, run_id=run), [1, 2, 3])
        found.append(lines(root)[-1]["counts"])
    assert found[0] == found[1] != found[2]


def test_counts_that_change_between_the_stages_do_not_go_into_the_sum(counted_folder):
    changed = []

    def change(node, reply):
        if not changed:
            changed.append(node)
            shorten(counted_folder / "ash", 1)
            approve(counted_folder / "ash")
        return reply

    again = Counted(counted_folder, attempts=1, run_id="again", change=change)
    assert again.records[0].secagg["absent"]["ash"] == {"stage": "mask", "code": "policy_statistics_again"}
    assert ("again", "masked") not in steps(counted_folder / "ash")


def test_the_log_has_it_that_a_sum_is_opened_before_the_shares_are_ready(parked, liar, counting_folder, monkeypatch):
    def killed(self, before, step):
        raise KilledError

    monkeypatch.setattr(Counting, "_answer", killed)
    with pytest.raises(KilledError):
        liar.ask("ash", parked)
    assert ("parked", "opened") in steps(counting_folder / "ash")


def test_with_its_shares_a_site_erases_its_masked_counts(parked, liar, counting_folder):
    assert list((counting_folder / "ash").glob("state/runs/parked/*.safetensors"))
    assert isinstance(liar.ask("ash", parked), Report)
    assert not list((counting_folder / "ash").glob("state/runs/parked/*.safetensors"))


def test_two_processes_do_not_look_at_the_log_at_once(counting_folder, liar, monkeypatch):
    monkeypatch.setattr("client.datacard.sums.PATIENCE_S", 0.0)
    root = counting_folder / "ash"
    with Sums(root, SiteKeys(root).signing()).alone():
        assert liar.advertise().code == "statistics_busy"
    assert isinstance(liar.advertise(), Report)


def test_a_training_that_begins_leaves_a_session_of_statistics_at_work(parked, liar, counting_folder):
    training = {"recipe": liar_recipe(), "steps": 2, "total_steps": 2, "run_id": "train", "base_digest": "d" * 64}
    terms = {"run_id": "train", "base_digest": "d" * 64, "weights": dict.fromkeys(ALL, 10)}
    asked = liar.order(STAGE_ACTIONS["advertise"], liar.session(**terms).to_dict(), **training)
    assert isinstance(liar.ask("ash", asked), Report)
    assert isinstance(liar.ask("ash", parked), Report)
