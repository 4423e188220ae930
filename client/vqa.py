"""Fine-tuning, evaluating and asking at a site's own command line; no server orders it or hears of it."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from client.asking import OWN_MODEL
from client.site import Site
from configs.compose import compose
from configs.loader import load
from mumc_model.answerer import SEVERAL, Answerer, Reply, keep_measured, lists_answers, read_image, reply
from mumc_model.answering import answer_rows, generate_answers
from mumc_model.calibration import Calibration
from mumc_model.candidates import Scoring
from mumc_model.config import FinetuneConfig, Recipe
from mumc_model.conformal import RISK
from mumc_model.data.files import write_atomically
from mumc_model.data.samples import VqaSamples
from mumc_model.device import choose_device
from mumc_model.ensemble import weigh_together
from mumc_model.errors import ConfigError, DataError
from mumc_model.evaluate import AnswerRow
from mumc_model.finetune import FinetuneResult, OnStep, VqaData, finetune
from mumc_model.model import MumcModel
from mumc_model.model_card import Facts
from mumc_model.normalise import NORMALISER, normalise_answer
from mumc_model.pretrained import kind_of, load_tokenizer, read_config
from mumc_model.retrieval import retrieve
from mumc_model.scorecard import Card, Evaluated, scorecard
from mumc_model.scorecard_text import draw, to_markdown
from mumc_model.selective import AccuracyTable
from mumc_model.trust import Trust, fit_trust
from mumc_model.trust_score import trust_score
from mumc_model.views import OnAnswered, View
from mumc_model.vqa import VqaModel
from mumc_model.zero_shot import Matcher, match_questions
from protocol.score_curve import SCORES_FILE, from_json

EVALUATION = "evaluation.json"
ANSWERS = "answers.jsonl"
"""Beside an evaluation: every answered question of it, for the site's own eyes and for pairing two evaluations."""
__all__ = ["OWN_MODEL", "ask_here", "evaluate_here", "finetune_here", "retrieve_here", "write_evaluation"]

VIEWS: tuple[tuple[str, View], ...] = (("blank_image", "blank"), ("shuffled_image", "shuffled"))


def finetune_here(
    site: Site,
    model_folder: Path,
    out: Path,
    overrides: Sequence[str],
    seed: int,
    *,
    on_start: Callable[[int], None] = lambda steps: None,
    on_step: OnStep | None = None,
) -> FinetuneResult:
    """Fine-tune pre-trained encoders on the site's questions and keep the answering model in `out`.

    Args:
        site: The site.
        model_folder: Encoders as `mumc-server export` or `mumc-site import-checkpoint` write them.
        out: Where the answering model goes.
        overrides: As in `finetune=mumc finetune.steps=500`.
        seed: Of batches and dropout.
        on_start: Called with the number of steps before the first.
        on_step: Called after each step.

    Raises:
        CheckpointError: the folder holds no encoders.
        DataError: the site has no training questions.
    """
    member = learn_here(site, model_folder, overrides, seed, on_start=on_start, on_step=on_step)
    member.answerer.save(out, member.facts)
    return member.result


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What fine-tuning came to, before it is kept anywhere."""

    answerer: Answerer
    result: FinetuneResult
    data: VqaData
    facts: Facts


def learn_here(
    site: Site,
    model_folder: Path,
    overrides: Sequence[str],
    seed: int,
    *,
    on_start: Callable[[int], None] = lambda steps: None,
    on_step: OnStep | None = None,
) -> Learned:
    """The answering model that pre-trained encoders become at the site, as `finetune_here` says; nothing is written."""
    settings = load(FinetuneConfig, compose("run", overrides)["recipe"]["finetune"], "finetune")
    model, tokenizer = MumcModel.from_pretrained(model_folder), load_tokenizer(model_folder)
    size = settings.image_size or model.config.vision.image_size
    on_start(settings.steps)
    data = VqaData.read(site.data, tokenizer, size, settings.question_tokens)
    result = finetune(
        model,
        data,
        tokenizer,
        Recipe(model=model.config, finetune=settings),
        device=site.device,
        precision=site.config.precision,
        seed=seed,
        on_step=on_step,
    )
    trust = fit_trust(
        result.model,
        result.candidates.texts,
        result.calibration,
        result.validated_NK,
        train=data.train,
        validation=data.val,
        device=site.device,
        curve=curve_beside(model_folder),
    )
    answerer = Answerer(
        model=result.model,
        tokenizer=tokenizer,
        texts=result.candidates.texts,
        calibration=result.calibration,
        trust=trust,
    )
    facts = {"started from": read_config(model_folder).get("facts", {}).get("run", "a model folder")}
    facts |= {"training questions": result.examples, "answers": len(answerer.texts), "selection": result.selection}
    return Learned(answerer=answerer, result=result, data=data, facts=facts)


def curve_beside(model_folder: Path) -> tuple[float, ...]:
    """What all sites' models scored on their questions, if it stands beside the encoders."""
    path = model_folder / SCORES_FILE
    return from_json(path.read_text(encoding="utf-8")).share if path.is_file() else ()


def evaluate_here(
    site: Site,
    model_folder: Path,
    *,
    method: str = "",
    normaliser: str = NORMALISER,
    scoring: Scoring = "mean",
    split: str = "test",
    on_start: Callable[[int], None] = lambda answers: None,
    on_answered: OnAnswered | None = None,
    on_rows: Callable[[Sequence[AnswerRow]], None] = lambda rows: None,
) -> Card:
    """Every question of a split answered once, with the image, without it and with another one; the numbers.

    `on_start` is called with the number of answers that there will be, `on_answered` with those just given, `on_rows`
    with all that were given with the image.

    Raises:
        ConfigError: the model cannot answer by this method.
        DataError: the site has no such questions.
    """
    normalise_answer("", normaliser)
    answers = _examiner(site, model_folder, method, normaliser, scoring, split)
    on_start(len(answers.samples) * (1 + len(VIEWS)) * answers.members)
    rows = answers.look("real", on_answered)
    on_rows(rows)
    found = Evaluated(
        rows=rows,
        asked=[row for row in site.data.vqa if row.split == split],
        train=[row for row in site.data.vqa if row.split == "train"],
        candidates=answers.texts,
        method=answers.method if answers.method != "rank" else f"rank, {scoring}",
        normaliser=normaliser,
        split=split,
        selection=str(read_config(model_folder).get("facts", {}).get("selection", "nothing was fine-tuned")),
        threshold=answers.threshold,
        views={name: answers.look(view, on_answered) for name, view in VIEWS},
        trust=answers.trust_score,
    )
    own = model_folder.resolve() == (site.root / OWN_MODEL).resolve()
    if own and split == "test" and normaliser == NORMALISER and answers.trust_score:
        # From now on answers stand beside what this site measured on questions that chose nothing.
        counted = AccuracyTable.of([row.confidence for row in rows], [row.correct for row in rows], "test")
        # Too few questions make an empty table, which would take validation's away.
        if counted.counts:
            keep_measured(model_folder, counted)
    return scorecard(found, np.random.default_rng(0))


def retrieve_here(site: Site, model_folder: Path) -> str | None:
    """Retrieval between the site's images and captions, in words; None for an answering model or without captions."""
    if _is_answering(model_folder) or not site.data.captions:
        return None
    model, tokenizer = MumcModel.from_pretrained(model_folder), load_tokenizer(model_folder)
    found = retrieve(model, site.data, tokenizer, device=site.device, precision=site.config.precision)
    return found.describe(np.random.default_rng(0))


def write_evaluation(card: Card, folder: Path, title: str) -> None:
    """Write `evaluation.json`, `.md` and `.svg`."""
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / EVALUATION, (text + "\n").encode())
    write_atomically(folder / "evaluation.md", to_markdown(card, title).encode())
    draw(card, folder / "evaluation.svg")


def keep_answers(rows: Sequence[AnswerRow], folder: Path) -> None:
    """Keep every answered question beside an evaluation; they are about patients and never leave the site.

    What an earlier evaluation says of itself goes first: beside other answers it would be wrong.
    """
    (folder / EVALUATION).unlink(missing_ok=True)
    lines = [json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows]
    write_atomically(folder / ANSWERS, "".join(lines).encode())


def ask_here(
    model_folder: Path,
    image: Path,
    question: str,
    *,
    method: str,
    answers: Sequence[str],
    top: int,
    device: str,
    risk: float = RISK,
) -> Reply:
    """The reply of an answering model, or of encoders that weigh the given answers without any fine-tuning.

    Where answers are given in place of the model's own list, nothing that validation taught holds for them.

    Raises:
        ConfigError: encoders were given no answers to weigh.
        DataError: the image cannot be read.
    """
    where = choose_device(device)
    if _is_answering(model_folder):
        answerer = Answerer.open(model_folder)
        if answers:
            texts = tuple(dict.fromkeys(answers))
            answerer = replace(answerer, texts=texts, trust=Trust(), calibration=Calibration())
        return answerer.ask(image, question, device=where, method=method or answerer.method, top=top, risk=risk)
    if not answers:
        raise ConfigError(
            f"{model_folder.name} holds encoders that were not fine-tuned, so they can only weigh answers that you "
            "give: --answer yes --answer no"
        )
    model, tokenizer = MumcModel.from_pretrained(model_folder).to(where), load_tokenizer(model_folder)
    with torch.no_grad():
        token_1SD = model.visual_encoder(read_image(image, model.config.vision.image_size).to(where))
    return reply(
        answers, Matcher(model, answers, tokenizer, where, len(answers)).probability(question, token_1SD), 0.0, top
    )


class _AnsweringExaminer:
    """Answers a split with a fine-tuned model, whatever is shown as the image."""

    def __init__(self, site: Site, folder: Path, method: str, normaliser: str, scoring: Scoring, split: str) -> None:
        self._site, self._normaliser, self._scoring = site, normaliser, scoring
        self._answerer = Answerer.open(folder)
        if not self._answerer.texts and (method == "rank" or not lists_answers(folder)):
            self._answerer = replace(self._answerer, texts=_training_answers(site))
        self.method = method or self._answerer.method
        self.members = len(self._answerer.models)
        if self.members > 1 and self.method == "generate":
            raise ConfigError(SEVERAL)
        ranks = self.method == "rank"
        self.texts = self._answerer.texts if ranks else ()
        self._calibration = self._answerer.calibration if ranks and scoring == "mean" else Calibration()
        self.threshold = self._calibration.threshold
        model = self._answerer.model
        size, tokens = model.visual_encoder.config.image_size, model.finetune.question_tokens
        self.samples = VqaSamples(site.data, split, self._answerer.tokenizer, size, tokens)
        self.trust_score: Card | None = None
        """What trusting the model as validation says means on these questions, once they were answered."""

    def look(self, view: View, on_answered: OnAnswered | None = None) -> list[AnswerRow]:
        """Every question answered once."""
        answerer, device, precision = self._answerer, self._site.device, self._site.config.precision
        if self.method == "generate":
            return generate_answers(
                answerer.model,
                answerer.tokenizer,
                self.samples,
                device=device,
                precision=precision,
                normaliser=self._normaliser,
                view=view,
                on_answered=on_answered,
            )
        probability_NK = weigh_together(
            answerer,
            self.samples,
            device=device,
            precision=precision,
            scoring=self._scoring,
            calibration=self._calibration,
            view=view,
            on_answered=on_answered,
        )
        if view == "real" and self._scoring == "mean":
            self.trust_score = trust_score(
                answerer.model,
                self.texts,
                self._calibration,
                answerer.trust,
                probability_NK,
                self.samples,
                device=device,
                normaliser=self._normaliser,
            )
        return answer_rows(self.texts, self.samples, probability_NK, self._normaliser)


class _MatchingExaminer:
    """Answers a split with encoders alone: which training answer, after the question, matches the image?"""

    method, threshold, trust_score, members = "zero-shot", 0.0, None, 1

    def __init__(self, site: Site, folder: Path, normaliser: str, split: str) -> None:
        self._site, self._normaliser = site, normaliser
        model, tokenizer = MumcModel.from_pretrained(folder), load_tokenizer(folder)
        self.texts = _training_answers(site)
        if not self.texts:
            raise DataError("zero-shot answers are weighed from the training answers, and this site has none")
        self._matcher = Matcher(model, self.texts, tokenizer, site.device)
        size, tokens = model.config.vision.image_size, model.config.text.max_positions
        self.samples = VqaSamples(site.data, split, tokenizer, size, tokens)

    def look(self, view: View, on_answered: OnAnswered | None = None) -> list[AnswerRow]:
        """Every question answered once."""
        precision = self._site.config.precision
        probability_NK = match_questions(
            self._matcher, self.samples, precision=precision, view=view, on_answered=on_answered
        )
        return answer_rows(self.texts, self.samples, probability_NK, self._normaliser)


def _examiner(
    site: Site, folder: Path, method: str, normaliser: str, scoring: Scoring, split: str
) -> _AnsweringExaminer | _MatchingExaminer:
    answering = _is_answering(folder)
    possible = ("rank", "generate") if answering else ("zero-shot",)
    if method and method not in possible:
        raise ConfigError(
            f"{folder.name} holds {'an answering model' if answering else 'encoders without an answer decoder'}, which "
            f"cannot answer by {method!r}; choose {' or '.join(possible)}"
        )
    if answering:
        return _AnsweringExaminer(site, folder, method, normaliser, scoring, split)
    return _MatchingExaminer(site, folder, normaliser, split)


def _training_answers(site: Site) -> tuple[str, ...]:
    answers = sorted(row.answer for row in site.data.vqa if row.split == "train")
    return tuple(text for text, _ in Counter(answers).most_common())


def _is_answering(folder: Path) -> bool:
    return kind_of(read_config(folder)) == VqaModel.kind
