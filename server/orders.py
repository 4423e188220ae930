"""What the server asks of the sites, round by round: plain values that a site parses and checks for itself."""

import dataclasses
import hashlib

from configs.loader import dump
from mumc_model.adapters import ADAPTED, HEADS
from mumc_model.config import Recipe
from mumc_model.errors import ConfigError
from protocol.compression import Codec
from protocol.lowrank import LowRank
from protocol.messages import Order
from server.config import CodecConfig, RunConfig

SMALLEST = "int8"
"""The smallest codec by which no loss of accuracy was measured (docs/results.md)."""


class Orders:
    """What sites are asked in each round of a run.

    Args:
        config: The run.
        run_id: Its name in every message.
        recipe: The run's, with the vocabulary's size filled in.
        tokens: The vocabulary.
        masked: Whether its rounds go under masks.
    """

    def __init__(
        self, config: RunConfig, run_id: str, recipe: Recipe, tokens: tuple[str, ...], *, masked: bool = False
    ) -> None:
        self._config, self._run_id, self._codec = config, run_id, run_codec(config.codec, recipe, masked=masked)
        self._recipe, self._plain, self._tokens = recipe, dump(recipe), tokens

    def pretrain(self, round: int, base_digest: str, attempt: int = 1) -> Order:
        """What a site is asked in a round of pre-training, from the weights of this digest."""
        federation = self._config.federation
        return self._order(
            "train.pretrain",
            round,
            base_digest,
            first_step=(round - 1) * federation.local_steps,
            steps=federation.local_steps,
            total_steps=federation.rounds * federation.local_steps,
            attempt=attempt,
        )

    def rehearse(self, base_digest: str) -> Order:
        """Two steps on synthetic data, whose weights come back and are merged into nothing."""
        return self._order("train.rehearse", 1, base_digest, first_step=0, steps=2, total_steps=2)

    def finetune(self, base_digest: str) -> Order:
        """What a site is asked after the last round."""
        steps = self._recipe.finetune.steps
        round = self._config.federation.rounds + 1
        return self._order("train.finetune", round, base_digest, first_step=0, steps=steps, total_steps=steps)

    def evaluate(self, base_digest: str) -> Order:
        """What a site is asked that shall answer its test questions again; no weights need travel beside."""
        return self._order("evaluate.vqa", 1, base_digest, first_step=0, steps=0, total_steps=0)

    def _order(
        self,
        action: str,
        round: int,
        base_digest: str,
        *,
        first_step: int,
        steps: int,
        total_steps: int,
        attempt: int = 1,
    ) -> Order:
        return Order(
            run_id=self._run_id,
            round=round,
            attempt=attempt,
            action=action,
            recipe=self._plain,
            vocabulary=self._tokens,
            first_step=first_step,
            steps=steps,
            total_steps=total_steps,
            seed=round_seed(self._config.seed, round),
            base_digest=base_digest,
            codec=self._codec.to_dict(),
        )


def run_codec(config: CodecConfig, recipe: Recipe, *, masked: bool) -> Codec:
    """How the updates of a run travel; `auto` is decided here.

    Factors of adapters travel as float32 unless the run says otherwise, since nothing makes up for what rounding takes
    from them. Under masks their products do, since sums of factors are of no use.
    """
    rank = 0 if masked else recipe.pretrain.adapters.rank
    kind = ("float32" if masked or rank else SMALLEST) if config.kind == "auto" else config.kind
    adapters = LowRank(rank=rank, factored=ADAPTED, whole=tuple(f"{head}*" for head in HEADS)) if rank else None
    return Codec(kind=kind, block=config.block, adapters=adapters)


def round_seed(seed: int, round: int) -> int:
    """The seed of a round, the same for every site; each mixes its own identity into it."""
    return int.from_bytes(hashlib.sha256(f"fedmumc round {seed} {round}".encode()).digest()[:8], "big") >> 1


def fit_vocabulary(recipe: Recipe, size: int) -> Recipe:
    """The recipe with the vocabulary's size filled in where it is open.

    Raises:
        ConfigError: the model has fewer embeddings than the vocabulary has tokens.
    """
    text = recipe.model.text
    if text.vocab_size and text.vocab_size < size:
        raise ConfigError(
            f"model.text.vocab_size is {text.vocab_size}, but the vocabulary has {size} tokens; set it to 0 to fit"
        )
    text = dataclasses.replace(text, vocab_size=text.vocab_size or size)
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, text=text))
