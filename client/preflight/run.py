"""The part of a run that concerns a site: what it will be ordered to do, as `mumc-server config` prints it."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from configs.compose import compose
from configs.loader import ConfigurationError, dump, load
from mumc_model.config import Recipe
from protocol.messages import Order
from protocol.secagg.session import LEAST_SITES

T = TypeVar("T")

MAX_BYTES = 8 << 20
PARTS = {"recipe", "vocabulary", "federation", "secagg"}
BERT_TOKENS = 30522
"""Tokens of BERT's vocabulary, which stands for one that is not here."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How long a run is."""

    rounds: int
    local_steps: int
    final: Literal["finetune", "evaluate", "rehearse", "none"]
    round_timeout_s: float


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How updates leave."""

    mode: Literal["auto", "required", "off"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run asks of a site."""

    recipe: Recipe
    vocabulary: str
    federation: Rounds
    secagg: Literal["auto", "required", "off"]
    """Whether updates leave under masks; `auto` where there are sites enough."""
    name: str
    """What messages call it."""

    def masks(self, sites: int) -> bool:
        """Whether updates leave under masks in a federation of so many sites; 0 where that is not known."""
        return self.secagg == "required" or (self.secagg == "auto" and not 0 < sites < LEAST_SITES)

    def orders(self, vocabulary_size: int, sites: int) -> Iterator[Order]:
        """The last order of each kind: of pre-training, then what follows; weights and seed are left open."""
        federation, recipe = self.federation, self.recipe
        total = federation.rounds * federation.local_steps
        if federation.rounds:
            first = total - federation.local_steps
            order = self._order("train.pretrain", federation.rounds, first, federation.local_steps, vocabulary_size)
            yield dataclasses.replace(order, masking={"stage": "mask"}) if self.masks(sites) else order
        if federation.final == "finetune":
            yield self._order("train.finetune", federation.rounds + 1, 0, recipe.finetune.steps, vocabulary_size)
        if federation.final == "rehearse":
            yield self._order("train.rehearse", 1, 0, 2, vocabulary_size)
        if federation.final == "evaluate":
            yield self._order("evaluate.vqa", 1, 0, 0, vocabulary_size)

    def _order(self, action: str, round: int, first_step: int, steps: int, vocabulary_size: int) -> Order:
        return Order(
            run_id="check",
            round=round,
            attempt=1,
            action=action,
            recipe=dump(with_vocabulary(self.recipe, vocabulary_size)),
            vocabulary=(),
            first_step=first_step,
            steps=steps,
            total_steps=first_step + steps,
            seed=0,
            base_digest="0" * 64,
        )


def read_run(path: Path) -> Run:
    """The run in a file.

    Raises:
        ConfigurationError: it is no file that `mumc-server config` printed.
    """
    try:
        with path.open("rb") as file:
            node = yaml.safe_load(file.read(MAX_BYTES))
    except OSError as error:
        raise ConfigurationError(
            f"the run's file cannot be read ({error.strerror}); ask the operator for what mumc-server config prints"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigurationError(
            "the run's file is not valid YAML; ask the operator for what mumc-server config prints"
        ) from None
    if not (isinstance(node, dict) and node.keys() >= PARTS):
        raise ConfigurationError(
            f"the run's file needs {', '.join(sorted(PARTS))}; ask the operator for what mumc-server config prints"
        )
    return _run(node, "the run")


def usual_run() -> Run:
    """The small run that `mumc-server run` starts where nothing else is asked for."""
    return _run(compose("run"), "the usual small run")


def with_vocabulary(recipe: Recipe, size: int) -> Recipe:
    """The recipe as an order has it, with the vocabulary's size where it is open."""
    text = recipe.model.text
    text = dataclasses.replace(text, vocab_size=text.vocab_size or size)
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, text=text))


def _run(node: dict[str, Any], name: str) -> Run:
    recipe = load(Recipe, node["recipe"], "recipe")
    rounds, masks = _part(Rounds, node, "federation"), _part(Masks, node, "secagg")
    return Run(recipe=recipe, vocabulary=str(node["vocabulary"]), federation=rounds, secagg=masks.mode, name=name)


def _part(cls: type[T], node: dict[str, Any], name: str) -> T:
    """What of a part of the run concerns a site; the rest is the server's own business."""
    part = node[name] if isinstance(node[name], dict) else {}
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return load(cls, {key: part[key] for key in known if key in part}, name)
