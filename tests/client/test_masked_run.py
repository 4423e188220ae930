"""Whole runs under masks: real sites with keys, folders and training, over a grid on which messages get lost."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from client.log import site_log_file
from mumc_model.errors import ConfigError
from protocol.messages import Report
from protocol.records import reply_from_record, to_record
from server.federation import run
from server.home import FederationFile, SecaggFile, settings_text
from simulations.grid import LocalGrid
from tests.client.masked import NODES, UNITS, config, limit
from tests.client.masked_runs import Played


def settle(folder, **secagg):
    """Write these into the federation's settings."""
    file = FederationFile(name="lung", address="localhost:9092", secagg=SecaggFile(**secagg))
    (folder / "hub" / "federation.yaml").write_text(settings_text(file))


def plain_mean(folder, server):
    """What a plain server makes of the first round of the same sites, weighted by their enrolled units, by name."""
    total, order = 0.0, server.pretrain()
    for name in sorted(NODES):
        # A site that has joined follows sealed orders only, so this one is made to leave first.
        (folder / name / "keys" / "federation.json").unlink()
        limit(folder / name, secure_aggregation="allowed")
        total = total + UNITS[name] * server.ask(folder / name, order).arrays["float32"].astype(float)
    return server.named({"float32": (total / sum(UNITS.values())).astype(np.float32)})


def test_a_masked_run_ends_with_the_plain_weighted_mean_and_says_that_it_was_masked(trio_folder, server):
    sent = []

    def look(node, content):
        sent.append((node, *reply_from_record(content)))
        return content

    played = Played(trio_folder, "federation.rounds=1", "run_id=trial", change=look)
    base, expected = server.named(server.base), plain_mean(trio_folder, server)
    for name, weight in sorted(load_file(played.result.weights).items()):
        np.testing.assert_allclose(weight, base[name] + expected[name], rtol=3e-7, atol=1e-8, err_msg=name)
    assert max(np.abs(change).max() for change in expected.values()) > 1e-4
    (record,) = played.records
    assert record.secagg == {
        "sites": sorted(NODES),
        "colluding": 0,
        "threshold": 2,
        "survivors": sorted(NODES),
        "revealed": True,
        "absent": {},
    }
    assert (record.sites_merged, record.examples) == (3, 60)
    said = json.loads(played.result.result.read_text())["secagg"]
    assert said == {"masked": True, "attempts": [{"round": 1, "attempt": 1, **record.secagg}]}
    assert {order for *_, order in played.grid.asked} == {"advertise", "share", "mask", "agree", "unmask"}
    assert {array.dtype.name for *_, arrays in sent for array in arrays.values()} == {"uint32"}


def test_a_site_that_dies_in_training_comes_back_in_the_next_round(trio_folder):
    lost = [("cedar", 2, 1, "mask")]
    played = Played(trio_folder, "federation.rounds=3", "federation.final=finetune", lost=lost)
    assert [record.sites_merged for record in played.records] == [3, 2, 3]
    second = played.records[1]
    assert second.refused == {"cedar": "flower_5"}
    assert second.secagg["absent"] == {"cedar": {"stage": "mask", "code": "flower_5"}}
    assert "masked, threshold 2" in str(second)
    assert "lost cedar (flower_5" in str(second)
    assert set(played.result.vqa) == set(NODES)
    # A site that is gone holds nobody up: it is not asked again.
    assert played.grid.asked.count(lost[0]) == 1
    for name in NODES:
        left = json.loads((next((trio_folder / name).glob("state/runs/*/secagg.json"))).read_text())["state"]
        assert left["stage"] == "ended"


@pytest.mark.parametrize("stage", ["advertise", "mask", "unmask"])
def test_a_site_whose_task_crashes_is_asked_once_more_and_takes_part(trio_folder, stage):
    played = Played(trio_folder, "federation.rounds=1", crashed=[("cedar", 1, 1, stage)])
    assert played.records[0].secagg["survivors"] == sorted(NODES)
    assert played.records[0].secagg["absent"] == {}
    assert played.grid.asked.count(("cedar", 1, 1, stage)) == 2


@pytest.mark.parametrize("stage", ["agree", "unmask"])
def test_a_site_that_is_lost_after_it_has_sent_its_vector_is_in_the_mean_all_the_same(trio_folder, stage):
    played = Played(trio_folder, "federation.rounds=1", lost=[("cedar", 1, 1, stage)])
    (record,) = played.records
    assert (record.sites_merged, record.refused) == (3, {})
    assert record.secagg["absent"] == {"cedar": {"stage": stage, "code": "flower_5"}}


def test_a_void_attempt_is_tried_again_and_its_words_name_the_threshold(trio_folder):
    settle(trio_folder, colluding=1)
    played = Played(trio_folder, "federation.rounds=2", lost=[("cedar", 1, 1, "mask")])
    assert [(r.round, r.attempt, r.sites_merged) for r in played.records] == [(1, 1, 0), (1, 2, 3), (2, 1, 3)]
    assert played.records[0].secagg["threshold"] == 3
    assert json.loads(played.result.result.read_text())["rounds"] == 2


def test_a_run_ends_when_attempts_in_a_row_are_void_and_says_why(trio_folder):
    settle(trio_folder, colluding=1)
    lost = [("cedar", 1, attempt, "share") for attempt in (1, 2)]
    played = Played(trio_folder, "federation.rounds=2", "federation.attempts=2", lost=lost)
    assert str(played.error) == (
        "round 1, attempt 2 is void: 2 of 3 sites answered the stage 'share', and 3 are needed (without an answer: "
        "cedar); start another attempt when they are there. The threshold is 3, since 2t > n + c for n = 3 sites of "
        "which c = 1 may collude (federation.yaml); no sites may drop out. Lost: cedar (flower_5: the "
        "connection to the site was lost). The weights are those of the round before"
    )
    assert [record.sites_merged for record in played.records] == [0, 0]


def test_a_round_whose_shares_were_revealed_is_not_tried_again(trio_folder):
    lost = [(name, 1, 1, "unmask") for name in ("birch", "cedar")]
    played = Played(trio_folder, "federation.rounds=2", lost=lost)
    assert [(r.round, r.attempt, r.sites_merged) for r in played.records] == [(1, 1, 0), (2, 1, 3)]


def test_min_sites_of_the_run_raises_the_threshold(trio_folder):
    played = Played(trio_folder, "federation.rounds=1", "federation.min_sites=3")
    assert played.records[0].secagg["threshold"] == 3


def test_a_swapped_vector_is_not_added(trio_folder):
    def swap(node, content):
        message, arrays = reply_from_record(content)
        if isinstance(message, Report) and arrays and node == NODES["cedar"]:
            return to_record(message, {name: words + np.uint32(1) for name, words in arrays.items()})
        return content

    played = Played(trio_folder, "federation.rounds=1", change=swap)
    assert played.records[0].refused == {"cedar": "bad_seal"}
    assert played.records[0].secagg["survivors"] == ["ash", "birch"]


def test_a_site_that_requires_masks_refuses_plain_rounds_with_the_reason(trio_folder):
    played = Played(trio_folder, "federation.rounds=1", "secagg.mode=off")
    assert played.records[0].refused == dict.fromkeys(NODES, "policy_secure_aggregation")
    assert played.records[0].reasons["ash"] == (
        '"the run sends updates without masks, and this site requires them (policy.runs.secure_aggregation)"'
    )


@pytest.mark.parametrize(
    ("secagg", "overrides", "text"),
    [
        ({"required": True, "colluding": 0}, ["secagg.mode=off"], "secagg.mode is off, and federation.yaml requires"),
        ({"required": True, "colluding": 2}, [], "3 sites take part, of which 2 may collude; it takes at least 4"),
        (
            {"colluding": 0},
            ["strategy.max_examples=29"],
            "cedar is enrolled with 30 units, above strategy.max_examples",
        ),
        ({"colluding": 0}, ["secagg.tolerance=1e-30"], "secagg.clip and secagg.tolerance do not go together"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_when_the_run_starts(trio_folder, secagg, overrides, text):
    settle(trio_folder, **secagg)
    with pytest.raises(ConfigError, match=text):
        Played(trio_folder, *overrides)
    assert not (trio_folder / "out").exists()


def test_masks_without_a_federation_are_refused(trio_folder):
    grid = LocalGrid({node: trio_folder / name for name, node in NODES.items()}, None)
    settings = config(f"output_dir={trio_folder / 'out'}", "secagg.mode=required")
    with pytest.raises(ConfigError, match="has no federation with enrolled sites whose keys could be checked"):
        run(grid, settings)


def test_the_site_s_log_has_a_receipt_of_every_stage_and_no_norm_of_masked_words(trio_folder):
    Played(trio_folder, "federation.rounds=1")
    entries = site_log_file(trio_folder / "ash").entries()
    for kind in ("order", "reply"):
        stages = [entry["stage"] for entry in entries if entry["kind"] == kind]
        assert stages == ["query.advertise", "query.share", "train.pretrain", "query.agree", "query.unmask"]
    (masked,) = (entry for entry in entries if entry.get("arrays"))
    assert list(masked["arrays"]) == ["uint32"]
    assert not masked["norm"]
