"""Local pre-training: one round of optimiser steps at a site, and what of it survives to the next round."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor, nn

from mumc_model.adapters import Adapters
from mumc_model.checkpoint import load_strictly
from mumc_model.config import Recipe, VisionConfig
from mumc_model.data.collate import PretrainBatch
from mumc_model.data.prefetch import Prefetcher
from mumc_model.data.shuffling import seeded
from mumc_model.device import autocast
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import MumcModel, initialise
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective, needs_teacher
from mumc_model.optimizer import Anchor, adamw, drop_moments, fill_moments, moments, pull
from mumc_model.schedule import learning_rate, ramped
from mumc_model.sharing import is_shared
from mumc_model.step_losses import LossReader, OnStep
from mumc_model.vision import MimDecoder

_DRAWS, _ADAPTERS = 2, 3
"""Keep the seeds of masking and of adapters apart from those of shuffling (0) and augmentation (1)."""

Factors = Mapping[str, tuple[Tensor, Tensor]]


class SpecialIds(Protocol):
    """The part of a tokenizer that masking needs."""

    @property
    def cls_id(self) -> int: ...  # noqa: D102
    @property
    def mask_id(self) -> int: ...  # noqa: D102


class Captions(Protocol):
    """Captioned images to train on."""

    @property
    def tokenizer(self) -> SpecialIds:
        """What made the token ids."""

    def batches(self, batch_size: int, seed: int, start_step: int = 0) -> Iterator[PretrainBatch]:
        """Batches of at least 2 pairs without end, each fixed by the seed and its step's number."""


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """What a round of local steps did."""

    steps: int
    examples: int
    """Pairs seen, repeats included."""
    losses: Mapping[str, float]
    """Mean of each loss over the round; `total` is their weighted sum."""
    seconds: float
    waited: float
    """Seconds of these that were spent waiting for data."""


class Pretrainer:
    """Trains one model by one recipe. Teacher and queue live for a round; private heads and moments may stay."""

    def __init__(self, model: MumcModel, recipe: Recipe, device: torch.device, precision: str = "fp32") -> None:
        """Move the model to the device and build what trains it.

        Raises:
            ConfigError: the recipe cannot be run.
            DeviceError: the precision is not to be had.
        """
        self.model, self.recipe, self.device, self.precision = model.to(device), recipe, device, precision
        autocast(device, precision)
        objective, vision = recipe.objective, recipe.model.vision
        self.adapters = Adapters(model, recipe.pretrain.adapters) if recipe.pretrain.adapters.rank else None
        self.factors: Factors = {}
        """What a round with adapters has added, as factors, once it is over."""
        self.teacher = Teacher(model) if needs_teacher(objective) else None
        self.queue = None
        if recipe.model.queue_size and self.teacher is not None:
            self.queue = FeatureQueue(recipe.model.queue_size, recipe.model.projection).to(device)
        self.mim_decoder = None
        if objective.mim:
            self.mim_decoder = mim_decoder(vision, objective.mim_depth).to(device)
        self.objective = PretrainObjective(model, self.teacher, self.queue, objective, self.mim_decoder)
        self._weights = {name: weight for name, weight in self._named_weights() if weight.requires_grad}
        self.optimizer = adamw(self._weights, recipe.pretrain.optimizer)

    def run(
        self,
        dataset: Captions,
        *,
        first_step: int,
        steps: int,
        total_steps: int,
        seed: int,
        on_step: OnStep | None = None,
    ) -> PretrainResult:
        """Take `steps` optimiser steps from the model's weights, as steps `first_step`... of a run of `total_steps`.

        Raises:
            DivergedError: a loss is no longer finite.
        """
        started = time.perf_counter()
        if self.adapters is not None:
            self.adapters.restart(seeded(seed, _ADAPTERS, first_step))
        self._begin_round()
        special = SpecialTokens(cls_id=dataset.tokenizer.cls_id, mask_id=dataset.tokenizer.mask_id)
        anchor = self._anchor()
        told = LossReader(on_step)
        examples = 0
        batches = Prefetcher(dataset.batches(self.recipe.pretrain.batch_size, seed, first_step), self.device)
        # Dropout has no generator of its own; the fork gives it this run's seed and hides that from the process around.
        with batches, torch.random.fork_rng():
            torch.manual_seed(seeded(seed, _DRAWS, first_step).initial_seed())
            for step in range(first_step, first_step + steps):
                self._set_rate(learning_rate(step, self.recipe.pretrain.optimizer, total_steps, first_step))
                draws = Draws(seeded(seed, _DRAWS, step), special)
                batch = next(batches)
                told.add(step, self._step(batch, draws, ramped(self.recipe.objective, step), anchor))
                examples += len(batch.ids_BL)
            told.finish()
        if self.adapters is not None:
            self.factors = self.adapters.fold()
        return PretrainResult(
            steps=steps,
            examples=examples,
            losses={name: total / max(steps, 1) for name, total in told.sums.items()},
            seconds=time.perf_counter() - started,
            waited=batches.waited,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What the site keeps between rounds, by name and on the CPU: private heads, and the optimiser's moments.

        Adapters are folded, and their moments belong to no weight any more.
        """
        kept: dict[str, Tensor] = {name: weight for name, weight in self._weights.items() if not is_shared(name)}
        if self._keeps_moments:
            kept |= moments(self._weights, self.optimizer)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in sorted(kept.items())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what an earlier round kept.

        Raises:
            CheckpointError: a name is missing or unexpected, or a shape differs; nothing is loaded then.
        """
        places = {name: weight.data for name, weight in self._weights.items() if not is_shared(name)}
        optimizer = adamw(self._weights, self.recipe.pretrain.optimizer)
        fill_moments(self._weights, optimizer)
        kept = moments(self._weights, optimizer)
        load_strictly(places | kept, state, "the weights kept from the last round", optional=kept)
        if self._keeps_moments:
            drop_moments(self._weights, optimizer, state)
            self.optimizer = optimizer

    @property
    def _keeps_moments(self) -> bool:
        return self.recipe.pretrain.keep_optimizer and self.adapters is None

    def _named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters()
        if self.mim_decoder is not None:
            yield from self.mim_decoder.named_parameters(prefix="mim_decoder")

    def _begin_round(self) -> None:
        """The merged weights are the teacher's too, and features of older weights are stale."""
        self.model.train()
        if self.teacher is not None:
            self.teacher.restart()
            self.teacher.train()
        if self.queue is not None:
            self.queue.reset()
        if not self.recipe.pretrain.keep_optimizer:
            self.optimizer = adamw(self._weights, self.recipe.pretrain.optimizer)

    def _anchor(self) -> Anchor:
        """The shared weights and their values at the start of the round, which FedProx holds them to."""
        if not self.recipe.pretrain.prox_mu:
            return []
        return [(weight, weight.detach().clone()) for name, weight in self._weights.items() if is_shared(name)]

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _step(self, batch: PretrainBatch, draws: Draws, alpha: float, anchor: Anchor) -> dict[str, Tensor]:
        """Losses of one optimiser step, over as many micro-batches as the recipe says."""
        config, parts = self.recipe.pretrain, _parts(batch, self.recipe.pretrain.accumulation)
        losses: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with autocast(self.device, self.precision):
                output = self.objective(part, draws, alpha, move_teacher=index == 0)
            torch.autograd.backward(output.total / len(parts))
            terms = {"total": output.total.detach(), **output.terms}
            losses = {name: losses.get(name, 0) + term / len(parts) for name, term in terms.items()}
        pull(anchor, config.prox_mu)
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(list(self._weights.values()), config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses


def mim_decoder(vision: VisionConfig, depth: int) -> MimDecoder:
    """A painting head, the same at every site."""
    with torch.random.fork_rng(devices=[]):
        decoder = MimDecoder(vision, depth)
    initialise(decoder, torch.Generator().manual_seed(depth), decoder.embed.out_features)
    return decoder


def _parts(batch: PretrainBatch, parts: int) -> list[PretrainBatch]:
    """The batch in equal parts, of at least 2 pairs each however small a site is, because a pair needs a negative."""
    parts = max(1, min(parts, len(batch.ids_BL) // 2))
    chunks = [torch.tensor_split(getattr(batch, field.name), parts) for field in fields(batch)]
    return [batch] if parts == 1 else [type(batch)(*tensors) for tensors in zip(*chunks, strict=True)]
