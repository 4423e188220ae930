"""What every round at a site has in common: the run's model with the weights that came, the captions, the report."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.gate import check_weights
from client.log import model_schema
from client.site import Site
from mumc_model.answerer import Answerer
from mumc_model.config import Recipe
from mumc_model.data.collate import CaptionDataset
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import CheckpointError, DataError
from mumc_model.model import HEAD, MumcModel, build_model
from protocol.codec import digest, unpack
from protocol.errors import StaleError
from protocol.messages import Order, Report
from protocol.schema import WeightSchema

Arrays = dict[str, np.ndarray[Any, Any]]


def merged_model(
    order: Order,
    base: Mapping[str, np.ndarray[Any, Any]],
    recipe: Recipe,
    site: Site,
    kept: Callable[[], Mapping[str, torch.Tensor] | None] = dict,
) -> tuple[MumcModel, WeightSchema]:
    """The run's model with the weights that came, and their schema.

    The masked-token head is that among what `kept` gives; without one it starts anew.

    Raises:
        ProtocolError: the weights are not those that the order names, or do not fit its model.
        GateError: some would leave the site that may not.
    """
    schema = model_schema(recipe.model)
    if order.action in ("train.pretrain", "train.rehearse"):
        check_weights(site.config.policy.runs, schema.names)
    weights = unpack(base, schema)
    # A digest takes as long as a copy and what `kept` reads together.
    with ThreadPoolExecutor(1) as beside:
        named = beside.submit(digest, base, schema)
        given = {name: torch.tensor(weight) for name, weight in weights.items()}
        given |= {name: weight for name, weight in (kept() or {}).items() if name.startswith(HEAD)}
        if named.result() != order.base_digest:
            raise StaleError(
                "the weights that came are not those that the order names; the server must send both again"
            )
    return build_model(recipe.model, site.seed(), given), schema


def packed_difference(model: MumcModel, base: Mapping[str, np.ndarray[Any, Any]], schema: WeightSchema) -> Arrays:
    """The model's shared weights less those of the base, packed."""
    state = model.state_dict()
    update = {dtype: np.empty(size, dtype) for dtype, size in schema.flat_sizes.items()}
    start = unpack(base, schema)
    for name, place in unpack(update, schema).items():
        np.subtract(state[name].detach().cpu().numpy(), start[name], out=place, casting="no")
    return update


def report(order: Order, site: Site, examples: int, metrics: Mapping[str, float]) -> Report:
    """The answer to an order, bound to its run, round, attempt and weights."""
    return Report(
        run_id=order.run_id,
        round=order.round,
        attempt=order.attempt,
        site=site.config.name,
        examples=examples,
        metrics=metrics,
        base_digest=order.base_digest,
    )


def kept_answerer(folder: Path, recipe: Recipe, vocabulary: tuple[str, ...]) -> Answerer:
    """The answering model that this run's fine-tuning left in the folder.

    Raises:
        DataError: there is none.
        CheckpointError: it is of another recipe or vocabulary, or damaged.
    """
    if not folder.is_dir():
        raise DataError("this run has not been fine-tuned here, so there is nothing to evaluate; order train.finetune")
    answerer = Answerer.open(folder)
    if answerer.model.config != recipe.model or tuple(answerer.tokenizer.vocab) != vocabulary:
        raise CheckpointError(
            "the answering model kept here is of another recipe or vocabulary than the order; order train.finetune"
        )
    return answerer


def as_numpy(weights: Mapping[str, torch.Tensor]) -> Arrays:
    """The same weights for the protocol, which knows no torch."""
    return {name: weight.numpy() for name, weight in weights.items()}


@lru_cache(maxsize=4)
def _dataset(
    site: Site, vocabulary: tuple[str, ...], image_size: int, tokens: int, crop_scale: float
) -> CaptionDataset:
    return CaptionDataset(site.data, Tokenizer(vocabulary), image_size, tokens, crop_scale)


def caption_dataset(site: Site, recipe: Recipe, vocabulary: tuple[str, ...]) -> CaptionDataset:
    """The site's captions as the recipe reads them, made once a process."""
    pretraining = recipe.pretrain
    return _dataset(
        site, vocabulary, recipe.model.vision.image_size, pretraining.caption_tokens, pretraining.crop_scale
    )
