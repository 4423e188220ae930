"""A whole run: first weights, rounds, fine-tuning or evaluation at the sites, result."""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
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
from protocol.bundle import installed_digest
from protocol.compression import Codec, decode
from protocol.errors import UnexpectedWeightsError
from protocol.lock import exclusive
from protocol.messages import Report
from server.checkpoint import WEIGHTS, Checkpoint, load_round, tidy, write_whole
from server.config import RunConfig
from server.errors import FederationError, OutputError, ServerError, VoidRoundError
from server.exchange import wait_for_nodes
from server.history import History
from server.journal import Journal, RoundRecord, name_lost
from server.modes import masked_terms
from server.orders import Orders, fit_vocabulary
from server.output import CONFIG, JOURNAL, LOCK, REPORT, RESULT, ROUND, own_folder, result_json, write_config
from server.report import to_markdown
from server.report_page import write_reports
from server.round_folder import RoundFolder
from server.rules import check_rule
from server.seal import Post
from server.secagg import Terms
from server.sinks import Sinks, check_sinks
from server.strategy import Strategy
from server.tally import Tally

Array = np.ndarray[Any, Any]
_log = logging.getLogger("fedmumc.server")


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
    *,
    resume: bool = False,
) -> FederationResult:
    """The result of the run; `on_round` sees each record as soon as it is on the disk.

    Args:
        grid: Flower's grid.
        config: The run.
        on_round: Shows a round.
        post: Signs orders and checks replies; without it the sites are those of a trial on one machine.
        resume: Whether to go on where another process has ended the run that lies in the output folder; `config` is
            the one that lies there too (`server.output.read_config`).

    Raises:
        OutputError: the output folder holds another run, another process plays this one, or the disk refuses.
        FederationError: too few sites came or could be merged; what was saved until then stands.
        ConfigError, CheckpointError: secure aggregation, the merging rule or a sink does not go with the run; the
            model, the vocabulary or the first weights cannot be had.
    """
    masks = masked_terms(config, post)
    check_sinks(config.sinks)
    check_rule(config.merge, config.federation.min_sites)
    folder = own_folder(Path(config.output_dir), resume=resume)
    with exclusive(folder / LOCK, OutputError, patience_s=1.0):
        own_folder(folder, resume=resume)
        return _Run(grid, config, folder, post, masks).play(on_round)


class _Run:
    """One process's part in a run."""

    def __init__(self, grid: Grid, config: RunConfig, folder: Path, post: Post | None, masks: Terms | None) -> None:
        self._grid, self._folder, self._post, self._masks = grid, folder, post, masks
        tokens = vocabulary(config.vocabulary).vocab
        recipe = fit_vocabulary(config.recipe, len(tokens))
        self._config = config if config.run_id else replace(config, run_id=uuid.uuid4().hex)
        self._start = self._checkpoint(recipe)
        self._journal, self._rounds = Journal(folder / JOURNAL), RoundFolder(folder / ROUND)
        self._orders = Orders(self._config, self._start.run_id, recipe, tuple(tokens), masked=masks is not None)
        self._strategy = Strategy(grid, self._config, self._start, self._journal, self._rounds, post=post, masks=masks)
        self._met = False

    def play(self, on_round: Callable[[RoundRecord], None]) -> FederationResult:
        """The rounds that are left, what comes after them, and the files that a finished run leaves."""
        config, folder, run_id = self._config, self._folder, self._start.run_id
        write_config(folder, config)
        if not self._start.round and (config.federation.rounds or config.federation.final == "finetune"):
            self._strategy.save(0)
        if self._start.round:
            tidy(folder, self._start.round, config.federation.keep_weights)
        sinks = Sinks(config.sinks, folder, run_id)
        try:
            for record in self._play_rounds():
                sinks.add(record)
                on_round(record)
            tally = self._final()
            self._finish(tally)
        except BaseException:
            # A run that breaks off can be read too; that it broke off is what has to be heard.
            with suppress(ServerError):
                self._report()
            sinks.close()
            raise
        sinks.end({site: report.metrics for site, report in tally.reports.items()}, config.federation.rounds + 1)
        return FederationResult(
            run_id=run_id,
            weights=folder / WEIGHTS,
            journal=self._journal.path,
            result=folder / RESULT,
            vqa={site: report.metrics for site, report in sorted(tally.reports.items())},
            refused=tally.refused,
            reasons=tally.reasons,
        )

    def _finish(self, tally: Tally) -> None:
        """Write what a finished run leaves; with the result in its place it has finished."""
        enrolled, code = (self._post.names, installed_digest()) if self._post else ((), "")
        result = result_json(
            self._config, self._start.run_id, self._journal.records, tally, enrolled=enrolled, code=code
        )
        write_whole(self._folder / RESULT, result)
        self._rounds.clear()
        try:
            self._report()
        except ServerError as error:
            # The run has finished; what people read of it can be made from its files at any time.
            _log.warning("%s; mumc-server report %s writes it anew", error, self._folder)

    def _report(self) -> None:
        """Write what people read of the run; a trial on one machine has a report of its own, over all its runs."""
        if self._post:
            write_reports(self._folder, self._post.names)
        else:
            write_whole(self._folder / REPORT, to_markdown(History.read(self._folder)).encode())

    def _checkpoint(self, recipe: Recipe) -> Checkpoint:
        """Where the run stands: what was saved last, else its first weights."""
        if (self._folder / WEIGHTS).is_file() and (self._folder / CONFIG).is_file():
            found = load_round(self._folder)
            if found.run_id == self._config.run_id:
                return found
        weights = first_weights(self._config, recipe)
        return Checkpoint(run_id=self._config.run_id, round=0, weights=weights, moments={})

    def _play_rounds(self) -> Iterator[RoundRecord]:
        """The record of every round, and of every attempt at one that was void.

        Raises:
            FederationError: `federation.attempts` in a row were void.
        """
        void = 0
        left = range(self._start.round + 1, self._config.federation.rounds + 1)
        for round in (round for round in left if not self._journal.given_up(round)):
            for attempt in count(self._next_attempt(round)):
                order = self._orders.pretrain(round, self._strategy.digest, attempt)
                try:
                    record = self._strategy.play_round(order, self._nodes)
                except VoidRoundError as error:
                    void += 1
                    yield error.record
                    if void >= self._config.federation.attempts:
                        raise
                    if error.over:
                        break
                else:
                    void = 0
                    yield record
                    break

    def _next_attempt(self, round: int) -> int:
        """The attempt at a round that an earlier process was at, or the one after it where that has ended void."""
        at_work = self._rounds.attempt(round)
        noted = self._journal.of(round, at_work)
        if at_work and (noted is None or noted.sites_merged):
            return at_work
        return 1 + max((record.attempt for record in self._journal.records if record.round == round), default=0)

    def _final(self) -> Tally:
        """What the sites report of their own fine-tuned models, or of a rehearsal; no weights come back that are kept.

        Raises:
            FederationError: not one site reports.
        """
        final, orders, strategy = self._config.federation.final, self._orders, self._strategy
        if final == "none":
            return Tally()
        make = {"finetune": orders.finetune, "evaluate": orders.evaluate, "rehearse": orders.rehearse}[final]
        order = make(strategy.digest)
        self._rounds.begin(order)

        def take(report: Report, arrays: Mapping[str, Array]) -> None:
            if final == "rehearse":
                strategy.check_update(report, decode(arrays, strategy.schema, Codec.of(order.codec)))
            else:
                _check_metrics(report, arrays)
            strategy.keep(report)

        tally = strategy.collect(order, partial(self._nodes, masked=False), take)
        if tally.reports:
            return tally
        what = "rehearsed" if final == "rehearse" else "reports a fine-tuned model"
        lost = f"no site {what}; lost: {name_lost(tally.refused, tally.reasons)}; each site's own log says more"
        if final == "finetune":
            lost += f". The merged weights lie in {self._config.output_dir}; mumc-server run DIR --resume asks again"
        raise FederationError(lost)

    def _nodes(self, *, masked: bool = True) -> list[int]:
        """Who is online: at first all expected sites are waited for, later a lost one gets a moment to come back."""
        federation, masks = self._config.federation, self._masks if masked else None
        least = max(federation.min_sites, masks.least_online if masks else 0)
        nodes = wait_for_nodes(
            self._grid,
            wanted=max(least, federation.sites),
            least=least,
            wait_s=federation.wait_s,
            rejoin_s=federation.rejoin_s if self._met else None,
            enrolled=self._post.enrolled if self._post else list,
        )
        self._met = True
        return nodes


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


def _check_metrics(report: Report, arrays: Mapping[str, Array]) -> None:
    if arrays:
        raise UnexpectedWeightsError("this reply carries metrics only; the answer decoder stays at its site")
