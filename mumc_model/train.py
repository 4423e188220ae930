"""Local pre-training: one round of optimiser steps at a site, and what of it survives to the next round."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor, nn

from mumc_model.adapters import Adapters
from mumc_model.checkpoint import load_strictly
from mumc_model.config import ObjectiveConfig, OptimizerConfig, Recipe, VisionConfig
from mumc_model.data.collate import PretrainBatch
from mumc_model.data.shuffling import seeded
from mumc_model.errors import ConfigError, DeviceError, DivergedError
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import MumcModel, initialise
from mumc_model.momentum import FeatureQueue, Teacher
from mumc_model.objective import PretrainObjective, needs_teacher
from mumc_model.optimizer import Anchor, adamw, drop_moments, fill_moments, moments, pull
from mumc_model.sharing import is_shared
from mumc_model.vision import MimDecoder

_DRAWS, _ADAPTERS = 2, 3
"""Keep the seeds of masking and of adapters apart from those of shuffling (0) and augmentation (1)."""

Factors = Mapping[str, tuple[Tensor, Tensor]]

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called after each step with its global number and its losses."""


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


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes an NVIDIA or AMD accelerator where there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(
            f"the device {name!r} is not here; set device to auto or cpu, or install a torch that knows it"
        ) from error
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that runs encoders in `fp32` or `bf16`; losses are in single precision either way.

    Raises:
        DeviceError: the precision has another name, or the device cannot do it.
    """
    if precision not in ("fp32", "bf16"):
        raise DeviceError(f"precision {precision!r} is not known; choose fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError("this accelerator cannot compute in bf16; set precision to fp32")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def learning_rate(step: int, config: OptimizerConfig, total_steps: int, round_first_step: int) -> float:
    """The rate at a step of the whole run: linear warm-up, then one schedule over all rounds.

    A later round warms up again over `rewarm_steps`, because the merged weights are new to the optimiser.

    Raises:
        ConfigError: an exponential schedule has no end to fall to.
    """
    progress = min(1.0, max(0, step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    share, end = 1.0, config.final_lr_share
    if config.schedule == "cosine":
        share = end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
    elif config.schedule == "exponential":
        if end <= 0:
            raise ConfigError("an exponential schedule needs optimizer.final_lr_share above 0; set it, say to 0.01")
        share = end**progress
    if step < config.warmup_steps:
        share *= (step + 1) / config.warmup_steps
    if round_first_step and step < round_first_step + config.rewarm_steps:
        share *= (step - round_first_step + 1) / config.rewarm_steps
    return config.lr * share


def ramped(objective: ObjectiveConfig, step: int) -> float:
    """Weight alpha of the teacher's soft targets at a step of the whole run."""
    ramp = objective.distill_ramp_steps
    return objective.distill * (min(1.0, step / ramp) if ramp else 1.0)


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
        batches = dataset.batches(self.recipe.pretrain.batch_size, seed, first_step)
        anchor = self._anchor()
        sums: dict[str, float] = {}
        examples = 0
        # Dropout has no generator of its own; the fork gives it this run's seed and hides that from the process around.
        with torch.random.fork_rng():
            torch.manual_seed(seeded(seed, _DRAWS, first_step).initial_seed())
            for step in range(first_step, first_step + steps):
                batch = next(batches).to(self.device)
                self._set_rate(learning_rate(step, self.recipe.pretrain.optimizer, total_steps, first_step))
                losses = self._step(
                    batch, Draws(seeded(seed, _DRAWS, step), special), ramped(self.recipe.objective, step), anchor
                )
                if not math.isfinite(losses["total"]):
                    raise DivergedError(
                        f"the loss is {losses['total']} at step {step}; lower optimizer.lr or clip gradients"
                    )
                sums = {name: sums.get(name, 0.0) + loss for name, loss in losses.items()}
                examples += len(batch.ids_BL)
                if on_step:
                    on_step(step, losses)
        if self.adapters is not None:
            self.factors = self.adapters.fold()
        means = {name: total / max(steps, 1) for name, total in sums.items()}
        return PretrainResult(steps=steps, examples=examples, losses=means, seconds=time.perf_counter() - started)

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

    def _step(self, batch: PretrainBatch, draws: Draws, alpha: float, anchor: Anchor) -> dict[str, float]:
        """Losses of one optimiser step, over as many micro-batches as the recipe says."""
        config, parts = self.recipe.pretrain, _parts(batch, self.recipe.pretrain.accumulation)
        names: list[str] = []
        sums = torch.zeros((), device=self.device)
        for index, part in enumerate(parts):
            with autocast(self.device, self.precision):
                output = self.objective(part, draws, alpha, move_teacher=index == 0)
            torch.autograd.backward(output.total / len(parts))
            names = ["total", *output.terms]
            sums = sums + torch.stack([output.total.detach(), *output.terms.values()]) / len(parts)
        pull(anchor, config.prox_mu)
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(list(self._weights.values()), config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return dict(zip(names, sums.tolist(), strict=True))


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
