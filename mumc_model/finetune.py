"""Fine-tuning at a site: its own questions, its own answer decoder, the best step by its own validation split.

Dimensions: N training questions, B questions of a batch, A answer tokens, T learned answer tokens, L question tokens,
C channels, H height, W width in pixels, D width, V vocabulary, K candidates.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mumc_model.answering import ImageTokens, answer_rows, rank_questions, right_candidates
from mumc_model.calibration import Calibration, calibrate
from mumc_model.candidates import Candidates, candidate_answers
from mumc_model.config import FinetuneConfig, Recipe
from mumc_model.data.records import SiteData
from mumc_model.data.samples import VqaSamples
from mumc_model.data.shuffling import shuffled
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import Augmentation
from mumc_model.device import autocast
from mumc_model.errors import DivergedError
from mumc_model.model import MumcModel
from mumc_model.schedule import learning_rate
from mumc_model.vqa import AnswerTeacher, VqaModel, answer_loss

_QUESTIONS = 128
AUGMENTATION = Augmentation(crop_scale=1.0)
"""No crop: it would move and enlarge what questions about place and size ask for."""

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
    validation_accuracy: float | None
    """Of the step that was kept; None where the site has no validation questions, and the last step was kept."""
    best_step: int
    looks: tuple[tuple[int, float], ...]
    """Each look at the validation split: the step and the accuracy."""
    selection: str
    """How the step was chosen, in one sentence that a report quotes."""
    calibration: Calibration
    """Fitted on the validation split with the weights that were kept; nothing is fitted under `select_on=test`."""
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

    The answers it can give are those of the training questions. Images are augmented only where their encoder learns.
    The test split is not read.

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
    batches = _deal(data.train, config.batch_size, seed, AUGMENTATION if config.freeze == "none" else None)
    # Dropout has no generator of its own; the fork gives it this run's seed and hides that from the process around.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lesson = _Lesson(vqa, data.train, tokenizer, config, device, precision)
        chosen_by = data.test if config.select_on == "test" else data.val
        selection = _Selection(vqa, candidates, chosen_by, device, precision, keep_tokens=config.freeze != "none")
        losses = _learn(vqa, lesson, batches, config, selection, on_step)
    selection.restore_best()
    recent = losses[-config.select_every :]
    return FinetuneResult(
        model=vqa.eval(),
        candidates=candidates,
        validation_accuracy=selection.best_accuracy,
        best_step=selection.best_step or config.steps,
        looks=tuple(selection.looks),
        selection=_rule(config, len(selection.looks), len(chosen_by)),
        calibration=selection.calibration() if chosen_by is data.val else Calibration(),
        loss=float(torch.stack(recent).mean()) if recent else float("nan"),
        seconds=time.perf_counter() - started,
    )


def _rule(config: FinetuneConfig, looks: int, questions: int) -> str:
    if not looks:
        return f"the last of {config.steps} steps, as there is nothing to choose by"
    if config.select_on == "test":
        return f"the best of {looks} looks ON THE {questions} TEST QUESTIONS: the test accuracy is too good"
    return f"the best of {looks} looks at {questions} validation questions"


def _learn(
    model: VqaModel,
    lesson: "_Lesson",
    batches: Iterator[tuple[Tensor, Tensor | None]],
    config: FinetuneConfig,
    selection: "_Selection",
    on_step: OnStep | None,
) -> list[Tensor]:
    """The steps themselves; returns each step's loss."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        trained, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=True
    )
    losses: list[Tensor] = []
    model.train()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings, config.steps, 0)
        loss = lesson.loss(*next(batches), alpha=config.distill * min(1.0, step / lesson.steps_per_epoch))
        torch.autograd.backward(loss)
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        done = step + 1
        if done % config.select_every == 0 or done == config.steps:
            _require_finite(losses, done)
            selection.look(done)
            model.train()
        if on_step:
            on_step(done, float(losses[-1]))
    return losses


def _require_finite(losses: list[Tensor], done: int) -> None:
    """Asked at the looks only, because an accelerator must be waited for."""
    if not torch.stack(losses).isfinite().all():
        raise DivergedError(
            f"the fine-tuning loss was no longer a number after {done} steps; lower finetune.optimizer.lr, or set its "
            "clip_norm"
        )


def _deal(
    samples: VqaSamples, batch_size: int, seed: int, augmentation: Augmentation | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Training questions by row without end, with their images only where these are seen differently each time."""
    if augmentation is None:
        for _, index_B in shuffled(len(samples), min(batch_size, len(samples)), seed, 0):
            yield index_B, None
    for batch in samples.batches(batch_size, seed, augmentation=augmentation):
        yield batch.index_B, batch.image_BCHW


class _Lesson:
    """The loss of a batch of training questions. What does not change during training is computed once."""

    def __init__(
        self,
        model: VqaModel,
        samples: VqaSamples,
        tokenizer: Tokenizer,
        config: FinetuneConfig,
        device: torch.device,
        precision: str,
    ) -> None:
        self._model, self._samples, self._device, self._precision = model, samples, device, precision
        self._teacher = AnswerTeacher(model, config.momentum) if config.distill else None
        self._answer_NA, mask_NA = tokenizer.answers(samples.answers, config.answer_tokens)
        self._length_N = mask_NA.sum(1)
        self.steps_per_epoch = max(1, len(samples) // config.batch_size)
        with autocast(device, precision):
            self._tokens = None if config.freeze == "none" else ImageTokens(model, samples, device, keep=True)
            self._state_NLD = self._all_states() if config.freeze == "encoders" else None

    def loss(self, index_B: Tensor, image_BCHW: Tensor | None, *, alpha: float) -> Tensor:
        """Nats an example, differentiable; the teacher moves first and is asked then."""
        length_B = self._length_N[index_B]
        answer_BA = self._answer_NA[index_B, : int(length_B.max())]
        learned_BA = torch.arange(answer_BA.shape[1]) < length_B[:, None] - 1
        target_T = answer_BA[:, 1:][learned_BA[:, :-1]].to(self._device)
        answer = answer_BA.to(self._device), learned_BA.to(self._device)
        image_BCHW = None if image_BCHW is None else image_BCHW.to(self._device)
        teacher_TV = None
        # Autocast remembers its half-precision weights until it ends, so it must end before the next optimiser step.
        with autocast(self._device, self._precision):
            if self._teacher:
                self._teacher.update()
                with torch.no_grad():
                    teacher_TV = self._logits(self._teacher.model, index_B, image_BCHW, answer)
            logits_TV = self._logits(self._model, index_B, image_BCHW, answer)
        return answer_loss(logits_TV, target_T, teacher_TV, alpha, len(index_B))

    def _logits(
        self, model: VqaModel, index_B: Tensor, image_BCHW: Tensor | None, answer: tuple[Tensor, Tensor]
    ) -> Tensor:
        ids_BL, mask_BL = (tensor.to(self._device) for tensor in self._samples.text(index_B))
        if self._state_NLD is not None:
            state_BLD = self._state_NLD[index_B.to(self._device), : mask_BL.shape[1]]
        else:
            state_BLD = model.question_states(self._image_tokens(model, index_B, image_BCHW), ids_BL, mask_BL)
        return model.answer_logits(state_BLD, mask_BL, *answer)

    def _image_tokens(self, model: VqaModel, index_B: Tensor, image_BCHW: Tensor | None) -> Tensor:
        if self._tokens is None:
            tokens_BSD: Tensor = model.visual_encoder(image_BCHW)
            return tokens_BSD
        return self._tokens(self._samples.image_of_N[index_B])

    @torch.no_grad()
    def _all_states(self) -> Tensor:
        assert self._tokens is not None
        self._model.eval()
        blocks = []
        for index_B in torch.split(torch.arange(len(self._samples)), _QUESTIONS):
            ids_BL, mask_BL = (rows[index_B].to(self._device) for rows in (self._samples.ids_NL, self._samples.mask_NL))
            tokens_BSD = self._tokens(self._samples.image_of_N[index_B])
            blocks.append(self._model.question_states(tokens_BSD, ids_BL, mask_BL))
        return torch.cat(blocks)


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
        self._probability_NK = torch.zeros(0, len(candidates))
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
            self._probability_NK = probability_NK

    @torch.no_grad()
    def restore_best(self) -> None:
        """Put the weights of the best look back."""
        for weight, best in zip(self._trained(), self._weights, strict=False):
            weight.copy_(best)

    def calibration(self) -> Calibration:
        """What the probabilities of the best look teach about its confidence."""
        return calibrate(self._probability_NK, right_candidates(self._candidates.texts, self._samples))

    def _trained(self) -> list[Tensor]:
        return [weight for weight in self._model.parameters() if weight.requires_grad]
