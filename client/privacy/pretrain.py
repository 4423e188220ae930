"""One round of private pre-training at a site: reserve, train, keep what will leave, reconcile, send.

What leaves is the noised difference, the policy's public number of units in the place of a count, and what the budget
has come to. An update that lies on the disk is sent again as it is, at whatever attempt at its round, and costs
nothing; a round that is trained again is charged again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from client.feedback import encoded
from client.privacy.bank import open_bank
from client.privacy.budget import rounded_up
from client.privacy.charging import sample_rate
from client.privacy.errors import ProvenanceError
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import Charge
from client.privacy.policy import PrivacyPolicy
from client.privacy.train import PrivatePretrainer, PrivateSite
from client.rounds import caption_dataset, merged_model, packed_difference, report
from client.site import Site
from client.state import Sent, trained_uncharged
from mumc_model.config import Recipe
from mumc_model.data.collate import CaptionDataset
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import DataError
from protocol.messages import EPSILON, Order, Report

Arrays = dict[str, np.ndarray[Any, Any]]


def pretrain_privately(
    order: Order, recipe: Recipe, base: Mapping[str, np.ndarray[Any, Any]], site: Site
) -> tuple[Report, Arrays]:
    """The report of `order.steps` private steps, and the difference to the base weights as it leaves.

    Raises:
        PrivacyError: policy, budget, ledger or the model do not allow it; its code says which.
        ProtocolError: the weights are not those that the order names, or do not fit its model.
    """
    ledger, state = Ledger.open(site.root), site.state(order.run_id)
    policy = ledger.policy()
    sent = state.sent_update(order)
    if sent is None:
        sent = _train(order, recipe, base, site, ledger)
    return report(order, site, policy.units, spent(ledger)), sent.arrays


def spent(ledger: Ledger) -> dict[str, float]:
    """What a report may say of the budget: the life-time epsilon, by the filter that the cap stops."""
    return {EPSILON: rounded_up(ledger.epsilon())}


def _train(order: Order, recipe: Recipe, base: Mapping[str, np.ndarray[Any, Any]], site: Site, ledger: Ledger) -> Sent:
    state = site.state(order.run_id)
    check_provenance(site.root, order.run_id, order.base_digest)
    model, schema = merged_model(order, base, recipe, site)
    privacy = recipe.privacy
    bank = open_bank(
        privacy.bank, recipe, Tokenizer(order.vocabulary), site.root / "state", site.config.bank, site.device
    )
    trainer = PrivatePretrainer(model, recipe, bank, site.device, site.config.precision)
    kept = state.private_weights(before_round=order.round, charged=True)
    if kept is not None:
        trainer.load_state_dict(kept)
    records = private_site(caption_dataset(site, recipe, order.vocabulary), bank.new_rows, ledger.policy(), recipe)
    charge = Charge(
        run=order.run_id,
        round=order.round,
        attempt=order.attempt,
        purpose="pretrain",
        unit=privacy.unit if privacy.unit != "none" else "patient",
        event=Event(sample_rate=records.sample_rate, noise_multiplier=privacy.noise_multiplier, steps=order.steps),
        clipping_norm=privacy.clipping_norm,
        expected_batch=privacy.expected_batch,
        operator="server",
    )
    reservation = ledger.reserve(charge, units=records.patients)
    try:
        trainer.run(records, first_step=order.first_step, steps=order.steps, total_steps=order.total_steps)
    except Exception:
        ledger.reconcile(reservation, trainer.steps_done)
        raise
    update = packed_difference(model, base, schema)
    state.keep_private_weights(order.round, trainer.state_dict(), charged=True)
    # The codec sees the noised update and what earlier noised ones left, and so costs nothing.
    sent = Sent(arrays=encoded(order, update, state, charged=True))
    state.keep_sent_update(order, sent)
    ledger.reconcile(reservation, order.steps)
    return sent


def check_provenance(root: Path, run_id: str, base_digest: str) -> None:
    """Return only if no training without differential privacy has touched the run, or these weights, at this site.

    Raises:
        ProvenanceError: it has.
    """
    if trained_uncharged(root, run_id, base_digest):
        raise ProvenanceError(
            "this run, or the weights it starts from, were trained on the same patients without differential privacy "
            "before, so no epsilon would hold; start a new run from public weights"
        )


def private_site(records: CaptionDataset, new_rows: Any, policy: PrivacyPolicy, recipe: Recipe) -> PrivateSite:
    """The records that may be used, their units, and the public rate at which units are drawn.

    Raises:
        DataError: there is none.
    """
    rows = new_rows(records)
    if not len(rows):
        raise DataError("pre-training needs captions that are not in the public bank, and this site has none")
    keys = records.patient_ids if recipe.privacy.unit == "patient" else records.keys
    return PrivateSite(
        records=records,
        rows=rows,
        units=tuple(keys[row] for row in rows.tolist()),
        patients=frozenset(records.patient_ids[row] for row in rows.tolist()),
        sample_rate=sample_rate(recipe.privacy.expected_batch, policy, "privacy.expected_batch"),
    )
