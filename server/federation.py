"""A whole run: first weights, rounds, fine-tuning or evaluation at the sites, result."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from mumc_model.checkpoint import load_text, load_vision, load_weights
from mumc_model.config import Recipe
from mumc_model.data.tokenizer import vocabulary
from mumc_model.model import build_model
from mumc_model.sharing import load_shared, shared_weights
from protocol.errors import UnexpectedWeightsError
from protocol.messages import Report
from server.checkpoint import WEIGHTS, write_whole
from server.config import RunConfig
from server.errors import FederationError
from server.exchange import wait_for_nodes
from server.journal import Journal, RoundRecord, name_lost
from server.orders import Orders, fit_vocabulary
from server.output import JOURNAL, RESULT, own_folder, result_json
from server.seal import Post
from server.strategy import Strategy, Tally

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class FederationResult:
    """What a finished run leaves."""

    run_id: str
    weights: Path
    """The merged weights, by name, in safetensors; a run that only evaluates writes none."""
    journal: Path
    result: Path
    vqa: Mapping[str, Mapping[str, float]]
    """The metrics that each site reports of its own fine-tuned model."""
    refused: Mapping[str, str]
    """Why a site that was asked for them did not report, as a code."""
    reasons: Mapping[str, str]
    """The same in words, where the site or the server gave any."""


def run(
    grid: Grid,
    config: RunConfig,
    on_round: Callable[[RoundRecord], None] = lambda record: None,
    post: Post | None = None,
) -> FederationResult:
    """The result of the run; `on_round` sees each record as soon as it is on the disk.

    `post` signs orders and checks replies; without it the sites are those of a trial on one machine.

    Raises:
        OutputError: the output folder holds another run, or the disk refuses.
        FederationError: too few sites came or could be merged; what was saved until then stands.
        ConfigError, CheckpointError: the model, the vocabulary or the first weights cannot be had.
    """
    folder = own_folder(Path(config.output_dir))
    run_id = config.run_id or uuid.uuid4().hex
    tokens = vocabulary(config.vocabulary).vocab
    recipe = fit_vocabulary(config.recipe, len(tokens))
    journal = Journal(folder / JOURNAL)
    strategy = Strategy(grid, config, run_id, first_weights(config, recipe), journal, post)
    orders = Orders(config, run_id, recipe, tuple(tokens))
    records = []
    for round in range(1, config.federation.rounds + 1):
        nodes = _nodes(grid, config, post, first=round == 1)
        records.append(strategy.play_round(orders.pretrain(round, strategy.digest), nodes))
        on_round(records[-1])
    tally = _final(grid, config, orders, strategy, post, first=not records)
    write_whole(folder / RESULT, result_json(config, run_id, records, tally))
    return FederationResult(
        run_id=run_id,
        weights=folder / WEIGHTS,
        journal=journal.path,
        result=folder / RESULT,
        vqa={site: report.metrics for site, report in sorted(tally.reports.items())},
        refused=tally.refused,
        reasons=tally.reasons,
    )


def first_weights(config: RunConfig, recipe: Recipe) -> dict[str, Array]:
    """The shared weights that the first round starts from: an earlier run's, public ones, or random by the seed."""
    model = build_model(recipe.model, config.seed)
    if config.init.vision:
        load_vision(model.visual_encoder, config.init.vision)
    if config.init.text:
        load_text(model.text_encoder, config.init.text)
    if config.initial_weights:
        load_shared(model, load_weights(config.initial_weights))
    return {name: weight.numpy() for name, weight in shared_weights(model).items()}


def _final(
    grid: Grid, config: RunConfig, orders: Orders, strategy: Strategy, post: Post | None, *, first: bool
) -> Tally:
    """What the sites report of their own fine-tuned models; weights must not come back.

    Raises:
        FederationError: not one site reports.
    """
    final = config.federation.final
    if final == "none":
        return Tally()
    if final == "finetune" and first:
        strategy.save(0)
    order = orders.finetune(strategy.digest) if final == "finetune" else orders.evaluate(strategy.digest)
    tally = strategy.ask(order, _nodes(grid, config, post, first=first), _take_metrics)
    if tally.reports:
        return tally
    lost = (
        f"no site reports a fine-tuned model; lost: {name_lost(tally.refused, tally.reasons)}; each site's own log "
        "says more"
    )
    if final == "finetune":
        lost += (
            f". The merged weights lie in {config.output_dir}; go on from them with initial_weights and "
            "federation.rounds=0"
        )
    raise FederationError(lost)


def _take_metrics(report: Report, arrays: Mapping[str, Array]) -> None:
    if arrays:
        raise UnexpectedWeightsError("this reply carries metrics only; the answer decoder stays at its site")


def _nodes(grid: Grid, config: RunConfig, post: Post | None, *, first: bool) -> list[int]:
    """Who is online: at first all expected sites are waited for, later a lost one does not hold the others up."""
    federation = config.federation
    wanted = federation.sites if first else federation.min_sites
    return wait_for_nodes(
        grid,
        wanted=wanted,
        least=federation.min_sites,
        wait_s=federation.wait_s,
        enrolled=post.enrolled if post else list,
    )
