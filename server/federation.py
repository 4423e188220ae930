"""A whole run: first weights, rounds, fine-tuning or evaluation at the sites, result."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
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
from server.errors import FederationError, VoidRoundError
from server.exchange import wait_for_nodes
from server.journal import Journal, RoundRecord, name_lost
from server.modes import masked_terms
from server.orders import Orders, fit_vocabulary
from server.output import JOURNAL, REPORT, RESULT, own_folder, result_json
from server.report import report_text
from server.seal import Post
from server.secagg import Terms
from server.strategy import Strategy
from server.tally import Tally

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
        ConfigError, CheckpointError: secure aggregation does not go with the run; the model, the vocabulary or the
            first weights cannot be had.
    """
    masks = masked_terms(config, post)
    folder = own_folder(Path(config.output_dir))
    run_id = config.run_id or uuid.uuid4().hex
    tokens = vocabulary(config.vocabulary).vocab
    recipe = fit_vocabulary(config.recipe, len(tokens))
    journal = Journal(folder / JOURNAL)
    strategy = Strategy(grid, config, run_id, first_weights(config, recipe), journal, post, masks)
    orders = Orders(config, run_id, recipe, tuple(tokens), masked=masks is not None)
    records: list[RoundRecord] = []
    for record in _rounds(strategy, orders, config, partial(_nodes, grid, config, post, masks)):
        records.append(record)
        on_round(record)
    tally = _final(grid, config, orders, strategy, post, first=not records)
    write_whole(folder / RESULT, result_json(config, run_id, records, tally))
    enrolled = post.names if post else ()
    write_whole(folder / REPORT, report_text(config, run_id, records, tally, enrolled).encode())
    return FederationResult(
        run_id=run_id,
        weights=folder / WEIGHTS,
        journal=journal.path,
        result=folder / RESULT,
        vqa={site: report.metrics for site, report in sorted(tally.reports.items())},
        refused=tally.refused,
        reasons=tally.reasons,
    )


def _rounds(
    strategy: Strategy, orders: Orders, config: RunConfig, online: Callable[..., list[int]]
) -> Iterator[RoundRecord]:
    """The record of every round, and of every attempt at one that was void.

    Raises:
        FederationError: a plain round is void, or `federation.attempts` masked ones in a row.
    """
    void = 0
    for round in range(1, config.federation.rounds + 1):
        for attempt in count(1):
            order = orders.pretrain(round, strategy.digest, attempt)
            try:
                record = strategy.play_round(order, online(first=(round, attempt) == (1, 1)))
            except VoidRoundError as error:
                void += 1
                yield error.record
                if void >= config.federation.attempts:
                    raise
                if error.over:
                    break
            else:
                void = 0
                yield record
                break


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
    """What the sites report of their own fine-tuned models, or of a rehearsal; no weights come back that are kept.

    Raises:
        FederationError: not one site reports.
    """
    final = config.federation.final
    if final == "none":
        return Tally()
    if final == "finetune" and first:
        strategy.save(0)
    order = {"finetune": orders.finetune, "evaluate": orders.evaluate, "rehearse": orders.rehearse}[final](
        strategy.digest
    )
    take = strategy.check_update if final == "rehearse" else _take_metrics
    tally = strategy.ask(order, _nodes(grid, config, post, first=first), take)
    if tally.reports:
        return tally
    what = "rehearsed" if final == "rehearse" else "reports a fine-tuned model"
    lost = f"no site {what}; lost: {name_lost(tally.refused, tally.reasons)}; each site's own log says more"
    if final == "finetune":
        lost += (
            f". The merged weights lie in {config.output_dir}; go on from them with initial_weights and "
            "federation.rounds=0"
        )
    raise FederationError(lost)


def _take_metrics(report: Report, arrays: Mapping[str, Array]) -> None:
    if arrays:
        raise UnexpectedWeightsError("this reply carries metrics only; the answer decoder stays at its site")


def _nodes(grid: Grid, config: RunConfig, post: Post | None, masks: Terms | None = None, *, first: bool) -> list[int]:
    """Who is online: at first all expected sites are waited for, later a lost one gets a moment to come back."""
    federation = config.federation
    least = max(federation.min_sites, masks.least_online if masks else 0)
    return wait_for_nodes(
        grid,
        wanted=max(least, federation.sites),
        least=least,
        wait_s=federation.wait_s,
        rejoin_s=None if first else federation.rejoin_s,
        enrolled=post.enrolled if post else list,
    )
