"""Local pre-training: one round of optimiser steps at a site, and what of it survives to the next round."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from mumc_model.adapters import Adapters
from mumc_model.bert import BertLayer
from mumc_model.checkpoint import load_strictly
from mumc_model.config import Recipe, VisionConfig
from mumc_model.data.collate import PretrainBatch, RowsOf
from mumc_model.data.prefetch import Prefetcher
from mumc_model.data.shuffling import seeded
from mumc_model.device import autocast, own_randomness
from mumc_model.kernels import Graphs, Kernels, RunPart, compile_blocks, run_by
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.memory import reused_memory
from mumc_model.model import MumcModel, initialise
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective, needs_teacher
from mumc_model.optimizer import Anchor, adamw, clip, make_room, moments, pull
from mumc_model.ranks import ALONE, Ranks
from mumc_model.schedule import learning_rate, ramped
from mumc_model.sharing import is_shared
from mumc_model.step_losses import LossReader, OnStep
from mumc_model.vision import Block, MimDecoder

_DRAWS, _ADAPTERS = 2, 3
"""Keep the seeds of masking and of adapters apart from those of shuffling (0) and augmentation (1)."""
BLOCKS = (Block, BertLayer)
"""What is compiled: the layers of both encoders."""

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

    def batches(
        self, batch_size: int, seed: int, start_step: int = 0, images: RowsOf | None = None
    ) -> Iterator[PretrainBatch]:
        """Batches of at least 2 pairs without end, each fixed by the seed and its step's number.

        `images` is given where several processes share a batch: with only those rows' images of it.
        """


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

    def __init__(
        self,
        model: MumcModel,
        recipe: Recipe,
        device: torch.device,
        precision: str = "fp32",
        ranks: Ranks = ALONE,
        kernels: Kernels = "eager",
    ) -> None:
        """Move the model to the device and build what trains it.

        `kernels` says how a GPU is given its work, where one process trains all weights in one pass a step.

        Each of several `ranks` builds one and calls `run` alike; what rank 0 starts from is what counts.

        Raises:
            ConfigError: the recipe cannot be run.
            DeviceError: the precision is not to be had.
        """
        self.model, self.recipe, self.device, self.precision = model.to(device), recipe, device, precision
        self.ranks = ranks
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
        self.objective = PretrainObjective(model, self.teacher, self.queue, objective, self.mim_decoder, ranks)
        self._parts = self._recorded_parts(kernels)
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
            ConfigError: a batch, or a part of one, has fewer pairs than there are ranks.
        """
        started = time.perf_counter()
        if self.adapters is not None:
            self.adapters.restart(seeded(seed, _ADAPTERS, first_step))
        self._begin_round()
        special = SpecialTokens(cls_id=dataset.tokenizer.cls_id, mask_id=dataset.tokenizer.mask_id)
        anchor = self._anchor()
        told = LossReader(on_step)
        examples = 0
        batches = Prefetcher(self._batches(dataset, seed, first_step), self.device)
        own_seed = seeded(seed, _DRAWS, first_step).initial_seed() + self.ranks.rank
        with reused_memory(), batches, own_randomness(self.device, own_seed), run_by(self._parts):
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

        Nothing is copied that is on the CPU already: a further step changes it. Adapters are folded, and their moments
        belong to no weight any more.
        """
        kept: dict[str, Tensor] = {name: weight for name, weight in self._weights.items() if not is_shared(name)}
        if self._keeps_moments:
            kept |= moments(self._weights, self.optimizer)
        return {name: tensor.detach().cpu() for name, tensor in sorted(kept.items())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what an earlier round kept.

        Raises:
            CheckpointError: a name is missing or unexpected, or a shape differs; nothing is loaded then.
        """
        places = {name: weight.data for name, weight in self._weights.items() if not is_shared(name)}
        optimizer = adamw(self._weights, self.recipe.pretrain.optimizer)
        make_room((w for name, w in self._weights.items() if f"optimizer.step.{name}" in state), optimizer)
        load_strictly(places | moments(self._weights, optimizer), state, "the weights kept from the last round")
        if self._keeps_moments:
            self.optimizer = optimizer

    @property
    def _keeps_moments(self) -> bool:
        return self.recipe.pretrain.keep_optimizer and self.adapters is None

    def _recorded_parts(self, kernels: Kernels) -> list[tuple[nn.Module, RunPart]]:
        """Student and teacher, each with its recorder; none where the work is given operation by operation."""
        one_pass = self.recipe.pretrain.accumulation == 1 and self.adapters is None and self.ranks.size == 1
        if kernels == "eager" or self.device.type != "cuda" or not one_pass:
            return []
        models = [self.model] if self.teacher is None else [self.model, self.teacher.model]
        if kernels == "compiled":
            compile_blocks(models, BLOCKS)
        return [(model, Graphs()) for model in models]

    def _named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters()
        if self.mim_decoder is not None:
            yield from self.mim_decoder.named_parameters(prefix="mim_decoder")

    def _begin_round(self) -> None:
        """The merged weights are the teacher's too, and features of older weights are stale."""
        self.model.train()
        if not self.recipe.pretrain.keep_optimizer:
            self.optimizer = adamw(self._weights, self.recipe.pretrain.optimizer)
        if self.ranks.size > 1:
            self._start_as_first()
        if self.teacher is not None:
            self.teacher.restart()
            self.teacher.train()
        if self.queue is not None:
            self.queue.reset()

    @torch.no_grad()
    def _start_as_first(self) -> None:
        """Take over from rank 0 its weights, and Adam's moments of those weights for which it has some."""
        self.ranks.copy_first(weight for _, weight in self._named_weights())
        has = torch.tensor([weight in self.optimizer.state for weight in self._weights.values()]).to(self.device)
        self.ranks.copy_first([has])
        if self.ranks.rank:
            self.optimizer.state.clear()
            had = zip(self._weights.values(), has.tolist(), strict=True)
            make_room((weight for weight, known in had if known), self.optimizer)
        self.ranks.copy_first(moments(self._weights, self.optimizer).values())

    def _batches(self, dataset: Captions, seed: int, first_step: int) -> Iterator[PretrainBatch]:
        size = self.recipe.pretrain.batch_size
        if self.ranks.size == 1:
            return dataset.batches(size, seed, first_step)
        return dataset.batches(size, seed, first_step, images=self._own_rows)

    def _own_rows(self, pairs: int) -> Tensor:
        """The rows of a batch whose images this rank sees: its share of each part."""
        parts = torch.arange(pairs).tensor_split(_parts(pairs, self.recipe.pretrain.accumulation))
        return torch.cat([part[self.ranks.share(len(part))] for part in parts])

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
        config, parts = self.recipe.pretrain, self._cut(batch)
        losses: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with autocast(self.device, self.precision):
                output = self.objective(part, draws, alpha, move_teacher=index == 0)
            torch.autograd.backward(output.total / len(parts))
            terms = {"total": output.total.detach(), **output.terms}
            losses = {name: losses.get(name, 0) + term / len(parts) for name, term in terms.items()}
        self.ranks.sum_gradients(self._weights.values())
        pull(anchor, config.prox_mu)
        if config.optimizer.clip_norm:
            clip(self.optimizer, self._weights, config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.ranks.sum(losses)

    def _cut(self, batch: PretrainBatch) -> list[PretrainBatch]:
        """The batch in the parts of an accumulated step: of all its texts, and of the images that this rank sees."""
        parts = _parts(len(batch), self.recipe.pretrain.accumulation)
        if parts == 1:
            return [batch]
        texts = {name: tensor.tensor_split(parts) for name, tensor in vars(batch).items() if name != "image_BCHW"}
        shares = [self.ranks.share(len(part)) for part in texts["ids_BL"]]
        images = batch.image_BCHW.split([share.stop - share.start for share in shares])
        cut = [dict(zip(texts, part, strict=True)) for part in zip(*texts.values(), strict=True)]
        return [replace(batch, image_BCHW=image, **part) for image, part in zip(images, cut, strict=True)]


def mim_decoder(vision: VisionConfig, depth: int) -> MimDecoder:
    """A painting head, the same at every site."""
    with torch.random.fork_rng(devices=[]):
        decoder = MimDecoder(vision, depth)
    initialise(decoder, torch.Generator().manual_seed(depth), decoder.embed.out_features)
    return decoder


def _parts(pairs: int, parts: int) -> int:
    """Into how many parts a batch is cut, of at least 2 pairs each however small a site is: a pair needs a negative."""
    return max(1, min(parts, pairs // 2))
