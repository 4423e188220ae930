"""Who answers a split for an evaluation: a fine-tuned model, or encoders that only match."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from client.site import Site
from mumc_model.answerer import SEVERAL, Answerer, is_answering, lists_answers
from mumc_model.answering import answer_rows, generate_answers
from mumc_model.calibration import Calibration
from mumc_model.candidates import Scoring
from mumc_model.data.samples import VqaSamples
from mumc_model.ensemble import weigh_together
from mumc_model.errors import ConfigError, DataError
from mumc_model.evaluate import AnswerRow
from mumc_model.model import MumcModel
from mumc_model.pretrained import load_tokenizer
from mumc_model.scorecard import Card
from mumc_model.trust_score import trust_score
from mumc_model.views import OnAnswered, View
from mumc_model.zero_shot import Matcher, match_questions


class AnsweringExaminer:
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


class MatchingExaminer:
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


def examiner(
    site: Site, folder: Path, method: str, normaliser: str, scoring: Scoring, split: str
) -> AnsweringExaminer | MatchingExaminer:
    """The one for this model.

    Raises:
        ConfigError: the model cannot answer by this method.
        DataError: encoders are to match the training answers, and there are none.
    """
    answering = is_answering(folder)
    possible = ("rank", "generate") if answering else ("zero-shot",)
    if method and method not in possible:
        raise ConfigError(
            f"{folder.name} holds {'an answering model' if answering else 'encoders without an answer decoder'}, which "
            f"cannot answer by {method!r}; choose {' or '.join(possible)}"
        )
    if answering:
        return AnsweringExaminer(site, folder, method, normaliser, scoring, split)
    return MatchingExaminer(site, folder, normaliser, split)


def _training_answers(site: Site) -> tuple[str, ...]:
    answers = sorted(row.answer for row in site.data.vqa if row.split == "train")
    return tuple(text for text, _ in Counter(answers).most_common())
