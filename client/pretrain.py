"""One round of pre-training at a site: merged weights in, the difference after local steps out, trained once."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from client.feedback import encoded
from client.gate import check_records
from client.privacy.policy import check_run, read_policy
from client.ranks import Job, SiteRanks
from client.rounds import Arrays, caption_dataset, merged_model, packed_difference, report
from client.site import Site
from client.state import Sent
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.errors import DataError
from mumc_model.memory import reused_memory
from mumc_model.train import Pretrainer
from protocol.codec import pack, unpack
from protocol.compression import Codec
from protocol.lowrank import LEFT, RIGHT
from protocol.messages import Order, Report
from protocol.schema import WeightSchema


def pretrain_site(
    order: Order, base: Mapping[str, np.ndarray[Any, Any]], site: Site, *, keep: bool = True
) -> tuple[Report, Arrays]:
    """The report of `order.steps` local steps, and the difference to the base weights as it leaves.

    What was trained for a round is kept before it leaves, and answers every further attempt at the round, as long as
    the site's captions are the same. Without `keep` that is the caller's to do, as under masks.

    Raises:
        PolicyError: the run protects the site's patients less than its signed policy demands.
        ProtocolError: the weights are not those that the order names, or do not fit its model.
        GateError: the site has too few captions, or weights would leave that may not.
        DataError: the site has no captions.
    """
    recipe = load(Recipe, order.recipe, "order.recipe")
    policy = read_policy(site.root)
    check_run(policy, recipe.privacy)
    check_records(site.config.policy.runs, policy.units if policy else len(site.data.captions))
    if not site.data.captions:
        raise DataError("pre-training needs captions, and this site has none; import some with mumc-site import")
    if recipe.privacy.on:
        # Opacus takes seconds to import, and a run without differential privacy does without.
        from client.privacy.pretrain import pretrain_privately

        return pretrain_privately(order, recipe, base, site)
    state, captions = site.state(order.run_id), captions_digest(site)
    sent = state.sent_update(order, captions) if keep else None
    if sent is None:
        # The update is made in the memory that the last step has freed.
        with reused_memory():
            sent = _train(order, recipe, base, site)
        if keep:
            state.keep_sent_update(order, sent, captions)
    return report(order, site, len(site.data.captions), sent.metrics), sent.arrays


def _train(order: Order, recipe: Recipe, base: Mapping[str, np.ndarray[Any, Any]], site: Site) -> Sent:
    state = site.state(order.run_id)
    with SiteRanks(site) as ranks:
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(state.private_weights, before_round=order.round)
            model, schema = merged_model(order, base, recipe, site, reading.result)
            private = reading.result()
        dataset = caption_dataset(site, recipe, order.vocabulary)
        group = ranks.join(Job.of(order, captions_digest(site), site.seed(order.seed)))
        trainer = Pretrainer(model, recipe, ranks.devices[0], site.config.precision, group, site.config.kernels)
        state.note_uncharged(order)
        if private is not None:
            trainer.load_state_dict(private)
        result = trainer.run(
            dataset,
            first_step=order.first_step,
            steps=order.steps,
            total_steps=order.total_steps,
            seed=site.seed(order.seed),
        )
    # The disk takes its time over moments twice the model's size; the update is made meanwhile.
    with ThreadPoolExecutor(1) as writer:
        kept = writer.submit(state.keep_private_weights, order.round, trainer.state_dict())
        arrays = encoded(order, packed_update(order, trainer, base, schema), state)
        kept.result()
    return Sent(arrays=arrays, metrics=result.losses)


def packed_update(
    order: Order, trainer: Pretrainer, base: Mapping[str, np.ndarray[Any, Any]], schema: WeightSchema
) -> Arrays:
    """What the order's codec encodes of a round: the packed difference, or the factors of what adapters have added.

    Raises:
        UpdateError: the order's adapters are others than the trainer's.
    """
    update = packed_difference(trainer.model, base, schema)
    codec = Codec.of(order.codec)
    if codec.adapters is None:
        return update
    sent = codec.sent(schema)
    weights = {name: weight for name, weight in unpack(update, schema).items() if name in sent.names}
    for name, (left, right) in trainer.factors.items():
        weights |= {name + LEFT: left.numpy(), name + RIGHT: right.numpy()}
    return pack(weights, sent)


def captions_digest(site: Site) -> str:
    """Names what an update was trained on: a patient who was withdrawn since is in no update that is sent again."""
    text = "".join(f"{record.image}\n{record.patient_id}\n{record.caption}\n" for record in site.data.captions)
    return hashlib.sha256(text.encode()).hexdigest()
