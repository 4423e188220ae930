"""The site's stages of secure aggregation over its own disk: dropouts, kills, resends, lies of the server, limits."""

import dataclasses
import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from client import secagg_store
from client.config import RunLimits
from client.keys import SiteKeys
from client.secagg import Masking
from client.secagg_store import SecaggStore
from configs.loader import ConfigurationError
from protocol.errors import StaleError
from protocol.messages import STAGE_ACTIONS, Report, from_json, to_json
from protocol.secagg.errors import ReplayError, ShareError, StageError, ThresholdError
from protocol.secagg.messages import Accord, Keys, Reveal, Roster, signed
from protocol.secagg.session import Session
from protocol.signing import new_key, public_hex
from tests.client.masked import NODES, STAGES, KilledError, Trio, check_sum, limit


@pytest.fixture
def trio(trio_folder, server):
    return Trio(trio_folder, server)


def state_file(trio, site="ash"):
    return trio.sites[site] / "state" / "runs" / "trial" / secagg_store.STATE


def test_the_sum_of_a_round_is_the_plain_weighted_mean_and_no_update_is_in_the_clear(trio):
    round = trio.round()
    check_sum(trio, round, sorted(NODES))
    for site in NODES:
        report, arrays = trio.sent[site, "mask"]
        (words,) = arrays.values()
        assert (report.examples, words.dtype) == (round.session.weights[site], np.uint32)
        # Masked words are uniform: their mean is that of all words, to within five standard deviations.
        assert abs(words.mean() / 2**32 - 0.5) < 5 / np.sqrt(12 * words.size)
        assert "update_norm" not in report.metrics
    assert not list(trio.sites["ash"].glob("state/runs/*/*.safetensors"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_site_that_drops_out_of_a_stage_costs_its_place_only(trio, stage):
    trio.lost = {("cedar", stage)}
    round = trio.round()
    still_in = stage in ("agree", "unmask")
    check_sum(trio, round, sorted(NODES) if still_in else ["ash", "birch"])
    assert round.absent == {"cedar": {"stage": stage, "code": "no_answer"}}
    assert round.tally.refused == ({} if still_in else {"cedar": "no_answer"})


def test_a_site_that_is_offline_when_the_round_begins_is_named_and_not_asked(trio):
    round = trio.round(online=("ash", "birch"))
    check_sum(trio, round, ["ash", "birch"])
    assert round.absent == {"cedar": {"stage": "advertise", "code": "offline"}}


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_nothing_is_opened_and_the_next_attempt_trains_nobody_again(trio, stage):
    trio.lost = {("birch", stage), ("cedar", stage)}
    round = trio.round()
    with pytest.raises(ThresholdError, match=f"1 of 3 sites answered the stage '{stage}', and 2 are needed"):
        round.play()
    assert round.revealed == (stage == "unmask")
    trio.lost.clear()
    again = trio.round(2 if round.revealed else 1, attempt=1 if round.revealed else 2)
    check_sum(trio, again, sorted(NODES))
    assert sorted(trio.trained) == sorted([*NODES] * (2 if round.revealed else 1))


def test_a_site_that_has_revealed_takes_part_in_no_other_attempt_at_the_round(trio):
    check_sum(trio, trio.round(), sorted(NODES))
    again = trio.round(attempt=2)
    with pytest.raises(ThresholdError, match="0 of 3 sites answered the stage 'advertise'"):
        again.play()
    assert set(again.tally.refused.values()) == {"already_revealed"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", range(7))
def test_a_site_that_is_killed_around_any_write_goes_on_and_the_sum_is_exact(trio, monkeypatch, place, when):
    writes, write = [], SecaggStore._write

    def killed(self, path, content):
        here = "ash" in str(path)
        if here:
            writes.append(path.name)
        dies = here and len(writes) == place + 1
        if dies and when == "before":
            raise KilledError
        write(self, path, content)
        if dies:
            raise KilledError

    monkeypatch.setattr(SecaggStore, "_write", killed)
    check_sum(trio, trio.round(), sorted(NODES))
    assert len(writes) > 7 - (when == "after")
    assert trio.trained.count("ash") == 1 + ((place, when) == (2, "before"))


def test_the_same_order_is_answered_with_the_same_bytes_and_nobody_trains_twice(trio):
    seen = {}

    def twice(stage):
        def forward(site, masking):
            if site == "ash":
                order = dataclasses.replace(trio.order(), action=STAGE_ACTIONS[stage], masking=masking)
                seen[stage] = [trio.answer("ash", order) for _ in range(2)]
            return masking

        return forward

    trio.lies = {stage: twice(stage) for stage in STAGES}
    check_sum(trio, trio.round(), sorted(NODES))
    for stage, ((first, arrays), (second, again)) in sorted(seen.items()):
        assert to_json(first) == to_json(second), stage
        assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert trio.trained.count("ash") == 1


def test_a_vector_that_is_gone_is_not_made_anew(trio):
    stored = []

    def lose(site, masking):
        if site == "ash":
            order = dataclasses.replace(trio.order(), masking=masking)
            trio.answer("ash", order)
            path = state_file(trio).with_name(secagg_store.VECTOR)
            path.unlink()
            stored.append(path)
        return masking

    trio.lies = {"mask": lose}
    round = trio.round()
    check_sum(trio, round, ["birch", "cedar"])
    assert round.absent["ash"] == {"stage": "mask", "code": "wrong_stage"}
    assert stored
    assert not stored[0].exists()


def test_secrets_lie_in_a_file_of_their_owner_s_and_leave_it_with_their_stage(trio):
    kept = {}

    def look(site, masking):
        if site == "ash" and state_file(trio).exists():
            state = json.loads(state_file(trio).read_text())["state"]
            kept[state["stage"]] = set(state["secrets"])
            assert state_file(trio).stat().st_mode & 0o777 == 0o600
        return masking

    trio.lies = dict.fromkeys(STAGES, look)
    check_sum(trio, trio.round(), sorted(NODES))
    assert kept == {
        "advertise": {"sealing", "masking"},
        "share": {"sealing", "masking", "seed", "shares"},
        "mask": {"shares"},
        "agree": {"shares"},
    }
    SecaggStore.of(trio.sites["ash"], "trial").end()
    assert json.loads(state_file(trio).read_text())["state"] == {
        "version": 1,
        "session": {"run_id": "trial", "round": 1, "attempt": 1},
        "stage": "ended",
        "revealed": True,
    }


def test_what_a_file_held_before_is_overwritten(trio, tmp_path):
    store = SecaggStore(tmp_path / "run")
    store.keep({"stage": "advertise", "secret": "deadbeef"}, None)
    held = (tmp_path / "run" / secagg_store.STATE).open("rb")
    store.keep({"stage": "share", "secret": "cafe"}, {"stage": "advertise", "secret": "deadbeef"})
    with held:
        assert set(held.read()) == {0}


def test_an_order_that_ends_after_a_later_one_was_answered_changes_nothing(trio):
    """A site trains so long that the server has begun the next attempt: what it has revealed there is not forgotten."""
    later = []

    def next_attempt(order):
        trio.lies = {}
        again = trio.round(attempt=2)
        check_sum(trio, again, sorted(NODES))
        later.append(state_file(trio).read_bytes())
        return Report(**{**vars(trio.sent["ash", "mask"][0]), "masking": {}, "attempt": 1}), trio.update("ash")

    def overtaken(site, masking):
        if site == "ash":
            order = dataclasses.replace(trio.order(), masking=masking)
            late = Masking(trio.sites["ash"], order, logging.getLogger("test"))
            with pytest.raises(StageError, match="this one comes too late"):
                late.mask(trio.server.base, next_attempt)
        return masking

    trio.lies = {"mask": overtaken}
    with pytest.raises(ThresholdError):
        trio.round().play()
    assert state_file(trio).read_bytes() == later[0]
    assert json.loads(later[0])["state"]["revealed"]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"state": 1, "metrics": {}}'])
def test_a_damaged_state_ends_the_site_s_part_and_is_not_taken_for_none(trio, content):
    check_sum(trio, trio.round(), sorted(NODES))
    state_file(trio).write_bytes(content)
    round = trio.round(2)
    check_sum(trio, round, ["birch", "cedar"])
    assert round.absent["ash"] == {"stage": "advertise", "code": "wrong_stage"}
    with pytest.raises(StageError, match="its engineer must look into it"):
        SecaggStore.of(trio.sites["ash"], "trial").before()


def other_roster(site, masking):
    """Ash is told of a roster without cedar; the others of all three."""
    if site != "ash":
        return masking
    roster = Roster.from_dict(masking)
    return dataclasses.replace(roster, keys=tuple(keys for keys in roster.keys if keys.site != "cedar")).to_dict()


def other_survivors(site, masking):
    return masking | {"sites": ["ash", "birch"]} if site == "ash" else masking


def other_base(site, masking):
    return masking | {"base_digest": "d" * 64} if site == "ash" else masking


def other_weight(site, masking):
    return masking | {"weights": masking["weights"] | {"ash": 11}} if site == "ash" else masking


def other_key(site, masking):
    if site != "ash":
        return masking
    return masking | {"keys": masking["keys"] | {"cedar": public_hex(new_key())}}


def swapped_inbox(site, masking):
    """What was sealed for ash comes from birch and cedar the other way round."""
    if site != "ash":
        return masking
    sealed = masking["sealed"]
    return masking | {"sealed": {"birch": sealed["cedar"], "cedar": sealed["birch"]}}


def wrong_accord(site, masking):
    """The same agreement twice, in the place of another site's."""
    if site != "ash":
        return masking
    accord = Accord.from_dict(masking)
    return dataclasses.replace(accord, agreements=(accord.agreements[0],) * 2).to_dict()


@pytest.mark.parametrize(
    ("stage", "lie", "code"),
    [
        ("advertise", other_base, "stale"),
        ("advertise", other_weight, "bad_session"),
        ("advertise", other_key, "unpinned_key"),
        ("mask", swapped_inbox, "bad_share"),
        ("agree", other_survivors, "inconsistent_sites"),
        ("share", other_roster, "inconsistent_sites"),
        ("unmask", wrong_accord, "inconsistent_sites"),
    ],
)
def test_a_site_that_is_lied_to_reveals_nothing(trio, stage, lie, code):
    trio.lies = {stage: lie}
    round = trio.round()
    check_sum(trio, round, sorted(NODES) if stage in ("agree", "unmask") else ["birch", "cedar"])
    assert round.absent == {"ash": {"stage": stage, "code": code}}
    state = json.loads(state_file(trio).read_text())["state"] if state_file(trio).exists() else {"revealed": False}
    assert not state["revealed"]


def test_an_order_of_another_round_cannot_ask_for_a_stage(trio):
    orders = []
    trio.lies = {"share": lambda site, masking: orders.append(masking) or masking}
    check_sum(trio, trio.round(), sorted(NODES))
    later = dataclasses.replace(trio.order(2), action="query.share", masking=orders[0])
    with pytest.raises(StaleError, match="another round than the order"):
        trio.answer("ash", later)


def test_a_stage_is_not_done_twice_with_another_input(trio):
    def again(site, masking):
        if site == "ash":
            order = dataclasses.replace(trio.order(), action="query.agree", masking=masking)
            trio.answer("ash", order)
            with pytest.raises(ReplayError):
                trio.answer("ash", dataclasses.replace(order, masking=masking | {"sites": ["ash", "cedar"]}))
        return masking

    trio.lies = {"agree": again}
    check_sum(trio, trio.round(), sorted(NODES))


def test_a_share_that_does_not_combine_opens_nothing_and_names_the_site(trio):
    round = trio.round()

    def lying(order, nodes, take, **words):
        """Ash reveals another share than birch dealt it, rightly signed."""

        def changed(report, arrays):
            if report.masking["kind"] == Reveal.kind and report.site == "ash":
                told = Reveal.from_dict(report.masking)
                shares = {"self_seeds": {**told.self_seeds, "birch": "ab" * 32}, "mask_keys": dict(told.mask_keys)}
                wrong = signed(Reveal, round.session, "ash", SiteKeys(trio.sites["ash"]).signing(), **shares)
                report = dataclasses.replace(report, masking=wrong.to_dict())
            take(report, arrays)

        return trio.ask(order, nodes, changed, **words)

    round.ask = lying
    with pytest.raises(ShareError, match="the shares of the self-mask of birch do not combine to what it announced"):
        round.play()
    assert round.revealed


@pytest.mark.parametrize(
    ("limits", "code", "text"),
    [
        (
            {"min_sites": 4},
            "policy_min_sites",
            "the session has 3 sites, and this site hides among no fewer than 4 (policy.runs.min_sites)",
        ),
        (
            {"colluding": 1},
            "policy_colluding",
            "the session holds against 0 colluding sites, and this site asks for 1 (policy.runs.colluding; "
            "secagg.colluding at the server)",
        ),
        (
            {"most_share": 0.25},
            "dominant_site",
            "this site could have 33.3% of the weight of a sum, above its limit of 25.0%, and the sum would show its "
            "update; agree on weights that are closer to one another, or on a higher threshold",
        ),
    ],
)
def test_a_session_that_covers_too_little_is_refused_with_the_numbers(trio, limits, code, text):
    limit(trio.sites["ash"], **limits)
    round = trio.round()
    check_sum(trio, round, ["birch", "cedar"])
    assert (round.tally.refused, round.tally.reasons) == ({"ash": code}, {"ash": text})


@pytest.mark.parametrize("limits", [{"min_sites": 0}, {"colluding": -1}, {"most_share": 0.0}, {"most_share": 1.5}])
def test_limits_of_secure_aggregation_that_mean_nothing_are_refused(limits):
    with pytest.raises(ConfigurationError, match=f"policy.runs.{next(iter(limits))} in site.yaml"):
        RunLimits(**limits)


def test_a_session_of_another_run_erases_what_earlier_ones_left(trio):
    trio.lost = {("ash", "unmask")}
    check_sum(trio, trio.round(), sorted(NODES))
    assert list(trio.sites["ash"].glob("state/runs/trial/*.safetensors"))
    store = SecaggStore.of(trio.sites["ash"], "trial")
    secagg_store.end_other_runs(trio.sites["ash"], "another")
    assert store.state()["stage"] == "ended"
    assert not list(trio.sites["ash"].glob("state/runs/trial/*.safetensors"))


def test_stages_around_training_import_no_torch(trio):
    """The whole ClientApp, in a process of its own."""
    masking = trio.round().session.to_dict()
    order = dataclasses.replace(trio.order(), vocabulary=(), action="query.advertise", masking=masking)
    path = trio.sites["ash"] / "order.json"
    path.write_text(to_json(order))
    code = (
        "import sys, logging, pathlib\n"
        "from client.app import app\nfrom client.secagg import Masking\nfrom protocol.messages import from_json\n"
        f"root = pathlib.Path({str(trio.sites['ash'])!r})\n"
        "report = Masking(root, from_json((root / 'order.json').read_text()), logging.getLogger()).advertise()\n"
        "print(report.masking['kind'], 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert said.stdout.split() == [Keys.kind, "False"]


def test_a_message_of_a_stage_survives_json(trio):
    round = trio.round()
    order = dataclasses.replace(trio.order(), action="query.advertise", masking=round.session.to_dict())
    assert from_json(to_json(order)) == order
    assert Session.from_dict(from_json(to_json(order)).masking) == round.session
