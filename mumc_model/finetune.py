"""Fine-tuning at a site: its own questions, its own answer decoder, the best step by its own validation split.

Dimensions: N questions, K candidates.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from mumc_model.adapters import ENCODERS, Adapters
from mumc_model.answering import answer_rows, rank_questions, right_candidates
from mumc_model.calibration import Calibration, calibrate
from mumc_model.candidates import Candidates, candidate_answers
from mumc_model.config import FinetuneConfig, Recipe
from mumc_model.data.prefetch import Prefetcher
from mumc_model.data.records import SiteData
from mumc_model.data.samples import VqaSamples
from mumc_model.data.shuffling import seeded
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.device import autocast, own_randomness
from mumc_model.lesson import Lesson, LessonBatch, deal
from mumc_model.memory import reused_memory
from mumc_model.model import MumcModel
from mumc_model.optimizer import adamw, clip
from mumc_model.question_types import QuestionTypes
from mumc_model.schedule import learning_rate
from mumc_model.step_losses import LossReader
from mumc_model.views import ImageTokens
from mumc_model.vqa import VqaModel

_ADAPTERS = 4
"""Keeps the draw of adapters apart from those of batches and of few questions."""

OnStep = Callable[[int, float], None]
"""Called with the number of steps done and the step's loss in nats an example."""


@dataclass(frozen=True, kw_only=True)
class VqaData:
    """A site's questions. Fine-tuning reads the first two splits, and the third only under `select_on=test`."""

    train: VqaSamples
    val: VqaSamples
    test: VqaSamples

    @classmethod
    def read(cls, site: SiteData, tokenizer: Tokenizer, image_size: int, question_tokens: int) -> "VqaData":
        """The site's questions, decoded at a size."""
        train, val, test = (
            VqaSamples(site, split, tokenizer, image_size, question_tokens) for split in ("train", "val", "test")
        )
        return cls(train=train, val=val, test=test)


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """A site's answering model and how it came about."""

    model: VqaModel
    candidates: Candidates
    examples: int
    """Training questions that it learned from."""
    validation_accuracy: float | None
    """Of the step that was kept; None where the site has no validation questions, and the last step was kept."""
    best_step: int
    looks: tuple[tuple[int, float], ...]
    """Each look at the validation split: the step and the accuracy."""
    selection: str
    """How the step was chosen, in one sentence that a report quotes."""
    calibration: Calibration
    """Fitted on the validation split with the weights that were kept; nothing is fitted under `select_on=test`."""
    validated_NK: Tensor
    """The validation questions' probabilities before calibration; none under `select_on=test`."""
    loss: float
    """Mean over the last `select_every` steps, in nats an example."""
    seconds: float


def finetune(
    model: MumcModel,
    data: VqaData,
    tokenizer: Tokenizer,
    recipe: Recipe,
    *,
    device: torch.device,
    precision: str = "fp32",
    seed: int,
    on_step: OnStep | None = None,
) -> FinetuneResult:
    """A model that answers the site's questions; the pre-trained model is left as it was.

    The answers it can give are those of the training questions, whether it learns from all of them or only from
    `finetune.examples`. Images are augmented only where their encoder learns. The test split is not read.

    Raises:
        DataError: there are no training questions.
        DeviceError: the precision is not to be had.
        DivergedError: the loss is no longer a number.
        ConfigError: more decoder layers than fusion layers.
    """
    started, config = time.perf_counter(), recipe.finetune
    candidates = candidate_answers(data.train.answers, tokenizer, config.answer_tokens).to(device)
    vqa = VqaModel.of_encoders(model, config).to(device)
    vqa.freeze(config.freeze)
    adapters = _adapters(vqa, config, seed)
    train = data.train.few(config.examples, seed) if config.examples else data.train
    batches = Prefetcher(deal(train, tokenizer, config, seed), device)
    with reused_memory(), batches, own_randomness(device, seed):
        lesson = Lesson(vqa, train, config, device, precision)
        chosen_by = data.test if config.select_on == "test" else data.val
        selection = _Selection(vqa, candidates, chosen_by, device, precision, keep_tokens=config.freeze != "none")
        recent = _learn(vqa, lesson, batches, config, selection, on_step)
    selection.restore_best()
    if adapters:
        adapters.fold()
    return FinetuneResult(
        model=vqa.eval(),
        candidates=candidates,
        examples=len(train),
        validation_accuracy=selection.best_accuracy,
        best_step=selection.best_step or config.steps,
        looks=tuple(selection.looks),
        selection=_rule(config, len(selection.looks), len(chosen_by)),
        calibration=selection.calibration(_guessed(data)) if chosen_by is data.val else Calibration(),
        validated_NK=selection.probability_NK if chosen_by is data.val else selection.probability_NK[:0],
        loss=fmean(recent) if recent else float("nan"),
        seconds=time.perf_counter() - started,
    )


def _adapters(model: VqaModel, config: FinetuneConfig, seed: int) -> Adapters | None:
    """Adapters in the encoders that are not frozen; the decoder learns as a whole."""
    if not config.adapters.rank:
        return None
    places = ENCODERS if config.freeze == "none" else ENCODERS[1:]
    # peft draws factors from the process's own randomness; they are drawn anew from the seed.
    with torch.random.fork_rng(devices=[]):
        adapters = Adapters(model, config.adapters, beside=("text_decoder.",), places=places)
    adapters.restart(seeded(seed, _ADAPTERS))
    return adapters


def _guessed(data: VqaData) -> list[str]:
    """The type of each validation question as it would be guessed of a new one, whose label nobody gives."""
    types = QuestionTypes.of(data.train.questions, data.train.question_types)
    return [types.guess(question) for question in data.val.questions]


def _rule(config: FinetuneConfig, looks: int, questions: int) -> str:
    if not looks:
        return f"the last of {config.steps} steps, as there is nothing to choose by"
    if config.select_on == "test":
        return f"the best of {looks} looks ON THE {questions} TEST QUESTIONS: the test accuracy is too good"
    return f"the best of {looks} looks at {questions} validation questions"


def _learn(
    model: VqaModel,
    lesson: Lesson,
    batches: Iterator[LessonBatch],
    config: FinetuneConfig,
    selection: "_Selection",
    on_step: OnStep | None,
) -> deque[float]:
    """The steps themselves; returns the losses of the last ones, as many as lie between two looks."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = adamw(trained, config.optimizer)
    recent: deque[float] = deque(maxlen=config.select_every)

    def tell(done: int, losses: Mapping[str, float]) -> None:
        recent.append(losses["total"])
        if on_step:
            on_step(done, losses["total"])

    told = LossReader(tell)
    model.train()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.optimizer, config.steps, 0)
        loss = lesson.loss(next(batches), alpha=config.distill * min(1.0, step / lesson.steps_per_epoch))
        torch.autograd.backward(loss)
        if config.optimizer.clip_norm:
            clip(optimizer, trained, config.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        told.add(done, {"total": loss})
        if done % config.select_every == 0 or done == config.steps:
            told.finish()
            selection.look(done)
            model.train()
    return recent


class _Selection:
    """Looks at the validation split and keeps the weights of the best look; among equals the surer, then the later."""

    def __init__(
        self,
        model: VqaModel,
        candidates: Candidates,
        samples: VqaSamples,
        device: torch.device,
        precision: str,
        *,
        keep_tokens: bool,
    ) -> None:
        self._model, self._candidates, self._samples = model, candidates, samples
        self._device, self._precision = device, precision
        with autocast(device, precision):
            self._tokens = ImageTokens(model, samples, device, keep=keep_tokens)
        self._best: tuple[float, float] = (-1.0, -1.0)
        self._weights: list[Tensor] = []
        self.probability_NK = torch.zeros(0, len(candidates))
        self.best_step: int | None = None
        self.best_accuracy: float | None = None
        self.looks: list[tuple[int, float]] = []

    def look(self, step: int) -> None:
        """Answer the validation questions; without any there is nothing to choose by."""
        if not len(self._samples):
            return
        self._model.eval()
        with autocast(self._device, self._precision):
            probability_NK = rank_questions(self._model, self._candidates, self._samples, self._tokens)
        rows = answer_rows(self._candidates.texts, self._samples, probability_NK)
        accuracy = sum(row.correct for row in rows) / len(rows)
        sureness = sum(row.confidence if row.correct else -row.confidence for row in rows) / len(rows)
        self.looks.append((step, accuracy))
        if (accuracy, sureness) >= self._best:
            self._best, self.best_step, self.best_accuracy = (accuracy, sureness), step, accuracy
            self._weights = [weight.detach().clone() for weight in self._trained()]
            self.probability_NK = probability_NK

    @torch.no_grad()
    def restore_best(self) -> None:
        """Put the weights of the best look back."""
        for weight, best in zip(self._trained(), self._weights, strict=False):
            weight.copy_(best)

    def calibration(self, types: Sequence[str]) -> Calibration:
        """What the probabilities of the best look teach about its confidence."""
        return calibrate(self.probability_NK, right_candidates(self._candidates.texts, self._samples), types)

    def _trained(self) -> list[Tensor]:
        return [weight for weight in self._model.parameters() if weight.requires_grad]
