"""Differential privacy under masks: noise first, then masks, and one charge a round however often it is tried."""

import json

from client.log import site_log_file
from client.privacy.ledger import Ledger
from server.home import FederationFile, SecaggFile, settings_text
from tests.client.masked import NODES
from tests.client.masked_runs import Played
from tests.client.privacy.private_rounds import PRIVATE, approve


def test_a_private_round_that_is_tried_again_under_masks_is_charged_once(trio_folder):
    file = FederationFile(name="lung", address="localhost:9092", secagg=SecaggFile(colluding=1))
    (trio_folder / "hub" / "federation.yaml").write_text(settings_text(file))
    for name in NODES:
        # The registry of this machine would take equal patients for one hospital's.
        captions = trio_folder / name / "captions.jsonl"
        rows = [json.loads(line) for line in captions.read_text().splitlines()]
        own = [json.dumps(row | {"patient_id": f"{name} {row['patient_id']}"}) + "\n" for row in rows]
        captions.write_text("".join(own))
        approve(trio_folder / name, epsilon=500.0)
    lost = [("cedar", 1, 1, "agree")]
    played = Played(trio_folder, *PRIVATE, "federation.rounds=1", lost=lost)
    assert [(r.attempt, r.sites_merged) for r in played.records] == [(1, 0), (2, 3)]
    record = played.records[1]
    assert record.epsilon.keys() == NODES.keys()
    assert not record.losses
    for name in NODES:
        assert sum(event.steps for event in Ledger.open(trio_folder / name).spent()) == 2
        left = [entry for entry in site_log_file(trio_folder / name).entries() if entry.get("arrays")]
        assert [list(entry["arrays"]) for entry in left] == [["uint32"], ["uint32"]]
