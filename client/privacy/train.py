"""Local pre-training under differential privacy: Poisson samples, clipped units, noise, and then an ordinary optimiser.

Whatever the trainer keeps or returns of the private records is the noised weights and what follows from them; losses
and norms are for the site's own eyes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.privacy.bank import Bank
from client.privacy.checks import check_independence, check_modules
from client.privacy.gradients import UnitGradients
from client.privacy.objective import BankObjective, UnitBatch, draw_units
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.randomness import SecureSource
from client.privacy.sampling import PoissonSampler
from client.privacy.steps import take_steps, unit_gradients
from client.privacy.whole_batch import WholeBatch
from mumc_model.adapters import Adapters
from mumc_model.checkpoint import load_strictly
from mumc_model.config import Recipe
from mumc_model.data.collate import CaptionDataset, PretrainBatch
from mumc_model.device import autocast
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import MumcModel
from mumc_model.momentum import Teacher
from mumc_model.optimizer import Anchor, adamw, make_room, moments, pull
from mumc_model.schedule import learning_rate, ramped
from mumc_model.sharing import is_shared
from mumc_model.train import mim_decoder

FIXED = ("visual_encoder.cls_token", "visual_encoder.pos_embed", "temp", "mim_decoder.mask_token")
"""Bare weights, which no layer owns: under differential privacy they stay as they came."""
TRIED = 3
"""Public pairs on which a trainer is tried before its first step."""

_ANY_TOKENS = SpecialTokens(cls_id=1, mask_id=2)
"""For the trial on public pairs, where it does not matter which tokens are masked."""

_HEAD = "text_encoder.cls.predictions."

OnStep = Callable[[int, Mapping[str, float]], None]


def _unseen(step: int, losses: Mapping[str, float]) -> None:
    """What a caller who does not look does with a step."""


@dataclass(frozen=True, kw_only=True)
class PrivateSite:
    """The private records and how they are sampled."""

    records: CaptionDataset
    rows: Tensor
    """Rows of `records` that may be used."""
    units: tuple[str, ...]
    """The unit of each of these rows."""
    patients: frozenset[str]
    """Whose records these are."""
    sample_rate: float
    """Public."""


class PrivatePretrainer:
    """Trains one model for one round. Teacher and adapters live for a round; private heads and moments may stay."""

    def __init__(
        self,
        model: MumcModel,
        recipe: Recipe,
        bank: Bank,
        device: torch.device,
        precision: str = "fp32",
        source: SecureSource | None = None,
    ) -> None:
        """Move the model to the device, build what trains it, and try it on public pairs.

        Raises:
            CouplingError: a layer or loss would let units reach one another.
            DeviceError: the precision is not to be had.
        """
        self.model, self.recipe, self.bank = model.to(device), recipe, bank
        self.device, self.precision = device, precision
        self.source = source or SecureSource()
        privacy, vision = recipe.privacy, recipe.model.vision
        autocast(device, precision)
        self.adapters = Adapters(model, privacy.adapters) if privacy.adapters.rank else None
        mim = recipe.objective.mim and not self.adapters
        self.mim_decoder = mim_decoder(vision, recipe.objective.mim_depth).to(device) if mim else None
        self.teacher = Teacher(model.to(device))
        self.teacher.eval()
        untie(model)
        self.roots: list[nn.Module] = [model, *([self.mim_decoder] if self.mim_decoder is not None else [])]
        self.weights = self._trained()
        self.optimizer = adamw(self.weights, recipe.pretrain.optimizer)
        self.objective = BankObjective(model, self.teacher, recipe.objective, self.mim_decoder)
        check_modules(self.weights, self.roots)
        self.gradients = self._gradients()
        self.steps_done = 0
        """Noised steps taken since the trainer was made: what there is to charge."""
        self._try()

    def run(
        self, site: PrivateSite, *, first_step: int, steps: int, total_steps: int, on_step: OnStep = _unseen
    ) -> float:
        """Take `steps` private steps, as steps `first_step`... of a run of `total_steps`; seconds come back.

        Each step is one release of the Gaussian mechanism on a Poisson sample, whatever the sample holds.
        """
        started = time.perf_counter()
        self._begin_round()
        config = self.recipe.pretrain
        sampler = PoissonSampler(site.units, site.sample_rate, self.source)
        optimizer = self._private(self._anchor())
        optimizer.attach_step_hook(self._count)

        def add(step: int, row_S: Tensor) -> dict[str, float]:
            if (step - first_step) % self.recipe.privacy.bank.refresh_steps == 0:
                self._encode_bank()
            return self._sum(site, site.rows[row_S], ramped(self.recipe.objective, step))

        def after(step: int, seen: Mapping[str, float]) -> None:
            self.teacher.update(self.recipe.objective.momentum)
            on_step(step, seen)

        take_steps(
            range(first_step, first_step + steps),
            optimizer,
            self.source,
            rate=lambda step: learning_rate(step, config.optimizer, total_steps, first_step),
            draw=sampler.draw,
            add=add,
            after=after,
        )
        if self.adapters is not None:
            self.adapters.fold()
        return time.perf_counter() - started

    def state_dict(self) -> dict[str, Tensor]:
        """What the site keeps between rounds, on the CPU: private heads, and the optimiser's moments.

        Nothing is copied that is on the CPU already: a further step changes it. Adapters are folded and their moments
        belong to no weight any more, so with them nothing is kept.
        """
        if self.adapters is not None:
            return {}
        kept: dict[str, Tensor] = {name: weight for name, weight in self.weights.items() if not is_shared(name)}
        if self.recipe.pretrain.keep_optimizer:
            kept |= moments(self.weights, self.optimizer)
        return {name: tensor.detach().cpu() for name, tensor in sorted(kept.items())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what an earlier private round kept.

        Raises:
            CheckpointError: a name is missing or unexpected, or a shape differs; nothing is loaded then.
        """
        if self.adapters is not None:
            return
        places = {name: weight.data for name, weight in self.weights.items() if not is_shared(name)}
        optimizer = adamw(self.weights, self.recipe.pretrain.optimizer)
        make_room((weight for name, weight in self.weights.items() if f"optimizer.step.{name}" in state), optimizer)
        load_strictly(places | moments(self.weights, optimizer), state, "the weights kept from the last round")
        if self.recipe.pretrain.keep_optimizer:
            self.optimizer = optimizer

    def _trained(self) -> dict[str, nn.Parameter]:
        named = dict(self.model.named_parameters())
        named[_HEAD + "bias"] = named.pop(_HEAD + "decoder.bias")
        if self.mim_decoder is not None:
            named |= dict(self.mim_decoder.named_parameters(prefix="mim_decoder"))
        for name in FIXED:
            if name in named:
                named[name].requires_grad_(False)
        return {name: weight for name, weight in named.items() if weight.requires_grad}

    def _gradients(self) -> UnitGradients:
        return unit_gradients(self.recipe.privacy.grad_sample, self.weights, self.roots)

    def _private(self, anchor: Anchor) -> PrivateOptimizer:
        """The optimiser behind clipping and noise."""
        config, privacy = self.recipe.pretrain, self.recipe.privacy
        whole = privacy.negatives == "batch"

        def before_step() -> None:
            pull(anchor, config.prox_mu)
            if config.optimizer.clip_norm:
                torch.nn.utils.clip_grad_norm_(list(self.weights.values()), config.optimizer.clip_norm)

        return PrivateOptimizer(
            self.optimizer,
            noise_multiplier=privacy.noise_multiplier,
            # A whole batch that is clipped as one may turn round when one record comes or goes.
            clipping_norm=privacy.clipping_norm * (2 if whole else 1),
            expected_batch=1 if whole else privacy.expected_batch,
            source=self.source,
            before_step=before_step,
        )

    def _count(self, _: object) -> None:
        self.steps_done += 1

    def _try(self) -> None:
        """Try the units' gradients on the first public pairs."""
        self._encode_bank()
        self.model.train()
        rows = torch.arange(min(TRIED, len(self.bank)))
        units = self._units(self.bank.pairs(rows), torch.Generator().manual_seed(0))
        check_independence(self.gradients, self.weights, self._loss(0.0, []), units, self.roots)

    def _begin_round(self) -> None:
        self.model.train()
        self.teacher.restart()
        if not self.recipe.pretrain.keep_optimizer:
            self.optimizer = adamw(self.weights, self.recipe.pretrain.optimizer)

    def _anchor(self) -> Anchor:
        """The shared weights and their values at the start of the round, which FedProx holds them to."""
        if not self.recipe.pretrain.prox_mu:
            return []
        return [(weight, weight.detach().clone()) for name, weight in self.weights.items() if is_shared(name)]

    def _encode_bank(self) -> None:
        with autocast(self.device, self.precision):
            self.objective.bank = self.bank.encode(self.teacher.model)

    def _sum(self, site: PrivateSite, row_S: Tensor, alpha: float) -> dict[str, float]:
        """Sum the clipped gradients of these records; their mean losses come back, for the site alone."""
        generator, privacy = self.source.generator(), self.recipe.privacy
        if privacy.negatives == "batch":
            whole = WholeBatch(self.model, self.teacher, self.recipe.objective, self.mim_decoder)
            special = _special(site.records)
            pairs = site.records.pairs(row_S, generator).to(self.device)
            with autocast(self.device, self.precision):
                return whole.add(self.weights, pairs, Draws(generator, special), alpha, privacy.clipping_norm)
        seen: list[Mapping[str, Tensor]] = []
        for row_B in row_S.split(privacy.physical_batch) if len(row_S) else ():
            units = self._units(site.records.pairs(row_B, generator), generator, _special(site.records))
            self.gradients.add(self._loss(alpha, seen), units, privacy.clipping_norm)
        return _means(seen)

    def _units(
        self, pairs: PretrainBatch, generator: torch.Generator, special: SpecialTokens = _ANY_TOKENS
    ) -> UnitBatch:
        patches, words = self.recipe.model.vision.patches, self.model.config.text.vocab_size
        return draw_units(pairs, Draws(generator, special), self.recipe.objective, patches, words).to(self.device)

    def _loss(self, alpha: float, seen: list[Mapping[str, Tensor]]) -> Callable[[UnitBatch], Tensor]:
        def loss(units: UnitBatch) -> Tensor:
            with autocast(self.device, self.precision):
                loss_B, terms = self.objective(units, alpha)
            seen.append({"total": loss_B.detach(), **terms})
            return loss_B

        return loss


def untie(model: MumcModel) -> None:
    """Give the masked-token head a matrix of its own: the words as they are now, which stay so for the round.

    A unit's gradient of a tied matrix would be in two places; and a matrix as large as the vocabulary that learns by
    itself would be noise for the most part.
    """
    words = model.text_encoder.bert.embeddings.word_embeddings.weight
    predictions = model.text_encoder.cls.predictions
    if predictions.decoder.weight is words:
        predictions.decoder.weight = nn.Parameter(words.detach().clone(), requires_grad=False)
        # The bias has two names in MUMC; left with one, the head is layers and nothing else.
        del predictions.bias


def _special(records: CaptionDataset) -> SpecialTokens:
    return SpecialTokens(cls_id=records.tokenizer.cls_id, mask_id=records.tokenizer.mask_id)


def _means(seen: list[Mapping[str, Tensor]]) -> dict[str, float]:
    names = seen[0] if seen else {}
    return {name: float(torch.cat([terms[name] for terms in seen]).mean()) for name in names}
