"""One of the other processes of a site that trains on several devices, started and told its job by `client/ranks.py`.

It reads the site's folder, takes its weights from rank 0, and writes and sends nothing else. It ends with its job, or
with the process that started it.
"""

import json
import os
import sys
import threading
from pathlib import Path

import torch

from client.pretrain import captions_digest
from client.ranks import MEETING, READY, Job, Place
from client.rounds import caption_dataset
from client.site import open_folder
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.errors import DataError
from mumc_model.model import build_model, model_form
from mumc_model.ranks import join
from mumc_model.train import Pretrainer


def main() -> None:
    """Read the job from the first line of standard input, and train."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    train(load(Place, told["place"], "place"), load(Job, told["job"], "job"))


def train(place: Place, job: Job) -> None:
    """Train as one rank.

    Raises:
        DataError: the site's captions are not those that rank 0 trains on.
    """
    recipe = load(Recipe, job.recipe, "job.recipe")
    site = open_folder(Path(place.root))
    if captions_digest(site) != job.captions:
        raise DataError("the site's captions changed while a round began; the next attempt reads them anew")
    dataset, device = caption_dataset(site, recipe, job.vocabulary), torch.device(place.device)
    # Rank 0 tells every weight when the round begins, so none is drawn here.
    places = model_form(recipe.model).named_parameters()
    model = build_model(recipe.model, 0, {name: torch.empty_like(weight, device="cpu") for name, weight in places})
    folder = Path(place.folder)
    (folder / READY.format(place.rank)).touch()
    meeting = f"file://{folder / MEETING}"
    with join(device, rank=place.rank, size=place.size, meeting=meeting, timeout_s=place.timeout_s) as ranks:
        Pretrainer(model, recipe, device, place.precision, ranks).run(
            dataset, first_step=job.first_step, steps=job.steps, total_steps=job.total_steps, seed=job.seed
        )


def _end_with_parent() -> None:
    """Standard input ends when the process at its other end does."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
