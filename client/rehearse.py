"""A rehearsal: everything that a round of pre-training does at a site, on synthetic data that is nobody's."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from client.config import read_site_config
from client.pretrain import captions_digest, packed_update
from client.ranks import Job, SiteRanks
from client.rounds import Arrays, caption_dataset, merged_model, report
from client.site import Site, open_folder
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.train import Pretrainer
from protocol.compression import Codec, encode
from protocol.messages import Order, Report

LEAST_IMAGES = 8


def rehearse_site(order: Order, base: Mapping[str, np.ndarray[Any, Any]], root: Path) -> tuple[Report, Arrays]:
    """The report of `order.steps` steps on synthetic captions, and their packed difference to the base weights.

    The site's own data is not opened, nothing of the rehearsal is kept, and its weights are merged into nothing; so it
    trains without differential privacy whatever the run asks for.

    Raises:
        ProtocolError: the weights are not those that the order names, or do not fit its model.
        GateError: some would leave that may not.
    """
    recipe = load(Recipe, order.recipe, "order.recipe")
    (root / "state").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="rehearsal-", dir=root / "state") as place:
        site = _synthetic(Path(place), root, recipe)
        with SiteRanks(site) as ranks:
            model, schema = merged_model(order, base, recipe, site)
            dataset = caption_dataset(site, recipe, order.vocabulary)
            group = ranks.join(Job.of(order, captions_digest(site), order.seed))
            trainer = Pretrainer(model, recipe, ranks.devices[0], site.config.precision, group, site.config.kernels)
            result = trainer.run(
                dataset,
                first_step=order.first_step,
                steps=order.steps,
                total_steps=order.total_steps,
                seed=order.seed,
            )
    update = packed_update(order, trainer, base, schema)
    return report(order, site, len(site.data.captions), result.losses), encode(update, Codec.of(order.codec))


def _synthetic(place: Path, root: Path, recipe: Recipe) -> Site:
    """A synthetic site in `place`, on the device and under the limits of the one in `root`."""
    config = PhantomConfig(
        hospitals=1,
        images=max(LEAST_IMAGES, 2 * recipe.pretrain.batch_size),
        train_questions=0,
        val_questions=0,
        test_questions=0,
        image_size=recipe.model.vision.image_size,
    )
    (folder,) = write_hospitals(config, place, 0)
    own = read_site_config(root)
    return replace(open_folder(folder), config=own)
