"""Answers before any fine-tuning: which candidate makes, with the question, a text that matches the image?

Dimensions: N questions, K candidates, P kept candidates, S image tokens, D width, L tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mumc_model.data.samples import VqaSamples
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.device import autocast
from mumc_model.model import MumcModel, at_least_single
from mumc_model.text import Pairs
from mumc_model.views import ImageTokens, OnAnswered, View, by_image

KEPT = 32
"""Candidates of a question that the matching head looks at: those whose text lies nearest to the image."""
_TEXTS = 512
_QUESTIONS = 32


class Matcher:
    """Weighs some candidate answers by whether the text "question answer" matches an image."""

    def __init__(
        self, model: MumcModel, answers: Sequence[str], tokenizer: Tokenizer, device: torch.device, keep: int = KEPT
    ) -> None:
        """The contrastive features choose `keep` candidates of each question; the matching head weighs those."""
        self.model, self.answers, self.device = model.to(device).eval(), answers, device
        self._tokenizer = tokenizer
        self._keep = min(keep, len(answers))
        self._known: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.no_grad()
    def probability(self, question: str, token_1SD: Tensor) -> Tensor:
        """Probability K of each candidate, on the CPU; those that were not chosen get 0."""
        ids_KL, mask_KL, feature_KE = self._texts(question)
        nearest_P = (feature_KE @ self.model.image_feature(token_1SD)[0]).topk(self._keep).indices
        score_P = self._match(ids_KL[nearest_P], mask_KL[nearest_P], token_1SD)
        probability_K = torch.zeros(len(self.answers))
        probability_K[nearest_P.cpu()] = score_P.softmax(0).float().cpu()
        return probability_K

    def _texts(self, question: str) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens KL, their mask and features KE of "question answer" for every answer; many images share a question."""
        if question not in self._known:
            limit = self.model.config.text.max_positions
            ids_KL, mask_KL = self._tokenizer.captions([f"{question} {answer}" for answer in self.answers], limit)
            ids_KL, mask_KL = ids_KL.to(self.device), mask_KL.to(self.device)
            blocks = zip(torch.split(ids_KL, _TEXTS), torch.split(mask_KL, _TEXTS), strict=True)
            feature_KE = torch.cat([self.model.text_features(*block)[1] for block in blocks])
            self._known[question] = ids_KL, mask_KL, feature_KE
        return self._known[question]

    def _match(self, ids_PL: Tensor, mask_PL: Tensor, token_1SD: Tensor) -> Tensor:
        """Log-odds P that each text matches the image."""
        hidden_PLD = self.model.text_encoder.encode(ids_PL, mask_PL)
        first_P = torch.zeros(len(ids_PL), dtype=torch.int64, device=ids_PL.device)
        text_P = torch.arange(len(ids_PL), device=ids_PL.device)
        pairs = Pairs(text_X=text_P, image_X=first_P, at_XQ=first_P[:, None])
        (fused_P1D,) = self.model.text_encoder.fuse_pairs(hidden_PLD, mask_PL, token_1SD, [pairs])
        logits_P2 = at_least_single(self.model.match_logits(fused_P1D[:, 0]))
        return logits_P2[:, 1] - logits_P2[:, 0]


@torch.no_grad()
def match_questions(
    matcher: Matcher,
    samples: VqaSamples,
    *,
    precision: str = "fp32",
    view: View = "real",
    on_answered: OnAnswered | None = None,
) -> Tensor:
    """Probability NK of each of the matcher's answers to each question, on the CPU; nothing is trained for it."""
    probability_NK = torch.zeros(len(samples), len(matcher.answers))
    with autocast(matcher.device, precision):
        tokens = ImageTokens(matcher.model, samples, matcher.device, view=view)
        for block in by_image(samples, tokens, on_answered, _QUESTIONS):
            token_ISD = tokens(block.image_I)
            image_of_B = block.image_of_A[block.answer_of_B]
            for index, image in zip(block.index_B.tolist(), image_of_B.tolist(), strict=True):
                probability_NK[index] = matcher.probability(samples.questions[index], token_ISD[image : image + 1])
    return probability_NK
