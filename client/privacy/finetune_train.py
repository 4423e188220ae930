"""Fine-tuning under differential privacy: the answer decoder learns from Poisson samples, clipped units and noise.

Nothing is selected, stopped or calibrated by private questions: the last step is kept. There is no momentum teacher.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from client.privacy.answer_objective import AnswerObjective, AnswerUnits
from client.privacy.checks import check_independence, check_modules
from client.privacy.gradients import UnitGradients
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.questions import PrivateQuestions, made_up_units
from client.privacy.randomness import SecureSource
from client.privacy.sampling import PoissonSampler
from client.privacy.steps import take_steps, unit_gradients
from client.privacy.train import FIXED, TRIED
from mumc_model.config import Recipe
from mumc_model.device import autocast
from mumc_model.errors import ConfigError
from mumc_model.model import MumcModel
from mumc_model.optimizer import adamw
from mumc_model.schedule import learning_rate
from mumc_model.vqa import VqaModel

OnStep = Callable[[int, float], None]
"""Called with the number of steps done and the step's loss in nats a token, for the site alone."""


def _unseen(done: int, loss: float) -> None:
    """What a caller who does not look does with a step."""


class PrivateFinetuner:
    """Trains one answering model, once; the pre-trained model is left as it was."""

    def __init__(
        self,
        model: MumcModel,
        recipe: Recipe,
        device: torch.device,
        precision: str = "fp32",
        source: SecureSource | None = None,
    ) -> None:
        """Build the answering model and what trains it, and try it on made-up questions.

        Raises:
            CouplingError: a layer or the loss would let units reach one another.
            DeviceError: the precision is not to be had.
            ConfigError: more decoder layers than fusion layers, or settings that only plain fine-tuning knows.
        """
        if recipe.finetune.adapters.rank or recipe.finetune.examples:
            raise ConfigError(
                "private fine-tuning knows neither finetune.adapters nor finetune.examples; set both to 0; "
                "finetune.freeze says what need not learn"
            )
        self.recipe, self.device, self.precision = recipe, device, precision
        self.source = source or SecureSource()
        autocast(device, precision)
        self.model = VqaModel.of_encoders(model, recipe.finetune).to(device)
        self.model.freeze(recipe.finetune.freeze)
        hold_words(self.model)
        self.weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        self.objective = AnswerObjective(self.model)
        check_modules(self.weights, [self.model])
        self.gradients: UnitGradients = unit_gradients(recipe.privacy.grad_sample, self.weights, [self.model])
        self.steps_done = 0
        """Noised steps taken: what there is to charge."""
        self._try()

    def run(self, questions: PrivateQuestions, sample_rate: float, *, on_step: OnStep = _unseen) -> VqaModel:
        """The model after `finetune.steps` private steps, in evaluation mode; the trainer is of no use any more.

        Raises:
            PlanError: the rate is no probability.
        """
        config = self.recipe.finetune
        sampler = PoissonSampler(questions.units, sample_rate, self.source)
        optimizer = self._private()
        optimizer.attach_step_hook(self._count)
        self.model.train()
        take_steps(
            range(config.steps),
            optimizer,
            self.source,
            rate=lambda step: learning_rate(step, config.optimizer, config.steps, 0),
            draw=sampler.draw,
            add=lambda _, row_S: self._sum(questions, row_S),
            after=lambda step, loss: on_step(step + 1, loss),
        )
        release_words(self.model)
        return self.model.eval()

    def _private(self) -> PrivateOptimizer:
        """The optimiser behind clipping and noise."""
        config, privacy = self.recipe.finetune.optimizer, self.recipe.privacy.finetune

        def before_step() -> None:
            if config.clip_norm:
                torch.nn.utils.clip_grad_norm_(list(self.weights.values()), config.clip_norm)

        return PrivateOptimizer(
            adamw(self.weights, config),
            noise_multiplier=privacy.noise_multiplier,
            clipping_norm=privacy.clipping_norm,
            expected_batch=privacy.expected_batch,
            source=self.source,
            before_step=before_step,
        )

    def _sum(self, questions: PrivateQuestions, row_S: Tensor) -> float:
        """Sum the clipped gradients of these questions; their mean loss comes back, for the site alone."""
        generator, privacy = self.source.generator(), self.recipe.privacy.finetune
        losses: list[Tensor] = []
        for row_B in row_S.split(privacy.physical_batch) if len(row_S) else ():
            units = questions.batch(row_B, generator)
            self.gradients.add(self._loss(losses), units, privacy.clipping_norm)
        return float(torch.cat(losses).mean()) if losses else float("nan")

    def _loss(self, seen: list[Tensor]) -> Callable[[AnswerUnits], Tensor]:
        def loss(units: AnswerUnits) -> Tensor:
            with autocast(self.device, self.precision):
                loss_B = self.objective(units)
            seen.append(loss_B.detach())
            return loss_B

        return loss

    def _count(self, _: object) -> None:
        self.steps_done += 1

    def _try(self) -> None:
        self.model.train()
        units = made_up_units(self.model, TRIED, torch.Generator().manual_seed(0))
        check_independence(self.gradients, self.weights, self._loss([]), units, [self.model])


def hold_words(model: VqaModel) -> None:
    """Keep what a unit's gradient would not be whole of, or what belongs to no layer: words and bare weights stay.

    The decoder reads and writes by one matrix, as large as the vocabulary: learning it would be noise for the most
    part, and its gradient would be in two places.
    """
    decoder = model.text_decoder
    decoder.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    # The bias has two names in MUMC; left with one, the head is layers and nothing else.
    del decoder.cls.predictions.bias
    for name, weight in model.named_parameters():
        if name in FIXED:
            weight.requires_grad_(False)


def release_words(model: VqaModel) -> None:
    """Undo what `hold_words` did to names."""
    predictions = model.text_decoder.cls.predictions
    predictions.bias = predictions.decoder.bias
