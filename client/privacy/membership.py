"""A membership attack on a trained model: does it find patients likelier to be known whose records it learned?

The score of a record is the model's own loss on it, as private training computes it for one unit against a public bank,
averaged over several draws of masks and hard negatives; a patient's score is the mean over their records.

Dimensions: B records, M members, N non-members.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from client.privacy.audit_bounds import Scores
from client.privacy.bank import open_bank
from client.privacy.objective import BankObjective, draw_units
from mumc_model.config import ObjectiveConfig, PretrainConfig, Recipe
from mumc_model.data.collate import CaptionDataset
from mumc_model.data.records import read_site
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import DataError
from mumc_model.masking import Draws, SpecialTokens
from mumc_model.model import MumcModel
from mumc_model.momentum import Teacher
from mumc_model.pretrained import load_tokenizer
from mumc_model.privacy import BankConfig

DRAWS = 8
"""Of masks, patches and hard negatives for each record."""
FALSE_POSITIVES = 0.01
_BANK = 64
_BATCH = 16
_RESAMPLES = 1000
_LEVEL = 0.95
_CPU = torch.device("cpu")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class MembershipResult:
    """What the attack achieved. It comes from patients' records without noise: it stays at the site."""

    auc: float
    """How often a member scores above a non-member; 0.5 is a coin's toss."""
    auc_low: float
    auc_high: float
    true_positive_rate: float
    """Share of members above the threshold that at most 1 % of the non-members pass (none, below 100 of them)."""
    false_positive_rate: float
    """Share of non-members above it."""
    members: int
    non_members: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The result in plain words."""
        found = self.auc_low > 0.5
        return (
            f"attack on the model: AUC {self.auc:.3f} ({100 * _LEVEL:g} % interval {self.auc_low:.3f} to "
            f"{self.auc_high:.3f}; 0.5 is a coin's toss) over {self.members} patients that it learned from and "
            f"{self.non_members} that it did not; at {100 * self.false_positive_rate:g} % false alarms it finds "
            f"{100 * self.true_positive_rate:.1f} % of those it learned from. "
            + (
                "It tells them apart: the model remembers patients, or the two groups differ in something else. "
                if found
                else "It does not tell them apart. "
            )
            + "An attack that fails proves nothing, since another may succeed: only epsilon is a promise"
        )


def attack(
    folder: Path | str,
    site: Path | str,
    *,
    non_members: Path | str | None = None,
    held_out: Set[str] = frozenset(),
    seed: int = 0,
    on_progress: Progress = lambda done, total: None,
) -> MembershipResult:
    """How well the losses of the model in `folder` tell the site's patients from others.

    The others are those of the site folder `non_members`, or the site's own patients in `held_out`, which the model was
    not trained on. The same seed gives the same numbers.

    Raises:
        CheckpointError: the folder holds no pre-trained model with its vocabulary.
        DataError: neither or both kinds of others are given, or fewer than two patients on either side have captions.
    """
    if (non_members is None) == (not held_out):
        raise DataError("an attack needs patients that the model never saw: name another site folder or patients here")
    model, tokenizer = MumcModel.from_pretrained(folder), load_tokenizer(folder)
    scorer = _Scorer(model, tokenizer, seed)
    score = scorer.patients(Path(site), on_progress)
    if non_members is None:
        inside = {patient: value for patient, value in score.items() if patient not in held_out}
        outside = {patient: value for patient, value in score.items() if patient in held_out}
    else:
        inside, outside = score, scorer.patients(Path(non_members), on_progress)
    if min(len(inside), len(outside)) < 2:
        raise DataError(
            f"{len(inside)} members and {len(outside)} non-members have captions; an attack needs at least 2 of each"
        )
    return _judge(_values(inside), _values(outside), np.random.default_rng(seed))


class _Scorer:
    """A model's losses on single records, against public phantoms."""

    def __init__(self, model: MumcModel, tokenizer: Tokenizer, seed: int) -> None:
        self._model, self._tokenizer, self._seed = model, tokenizer, seed
        config = model.config
        self._recipe = Recipe(
            model=config,
            objective=ObjectiveConfig(mim=0.0),
            pretrain=PretrainConfig(caption_tokens=min(PretrainConfig.caption_tokens, config.text.max_positions)),
        )
        self._objective = BankObjective(model, Teacher(model).eval(), self._recipe.objective)
        with tempfile.TemporaryDirectory() as folder:
            bank = open_bank(BankConfig(size=_BANK), self._recipe, tokenizer, Path(folder), "", _CPU)
            self._objective.bank = bank.encode(model)

    def patients(self, site: Path, on_progress: Progress) -> dict[str, float]:
        """Mean score of each patient's records; higher is likelier to have been learned."""
        size, tokens = self._recipe.model.vision.image_size, self._recipe.pretrain.caption_tokens
        records = CaptionDataset(read_site(site), self._tokenizer, size, tokens, 1.0)
        generator = torch.Generator().manual_seed(self._seed)
        scores = defaultdict(list)
        for row_B in torch.arange(len(records.captions)).split(_BATCH):
            for row, loss in zip(row_B.tolist(), self._losses(records, row_B, generator).tolist(), strict=True):
                scores[records.patient_ids[row]].append(-loss)
            on_progress(row_B[-1].item() + 1, len(records.captions))
        return {patient: float(np.mean(values)) for patient, values in scores.items()}

    @torch.no_grad()
    def _losses(self, records: CaptionDataset, row_B: Tensor, generator: torch.Generator) -> Tensor:
        """Loss B of each record, the mean over draws."""
        draws = Draws(generator, SpecialTokens(cls_id=self._tokenizer.cls_id, mask_id=self._tokenizer.mask_id))
        patches, words = self._recipe.model.vision.patches, self._recipe.model.text.vocab_size
        pairs = records.pairs(row_B, None)
        units = [draw_units(pairs, draws, self._recipe.objective, patches, words) for _ in range(DRAWS)]
        return torch.stack([self._objective(drawn, 0.0)[0] for drawn in units]).mean(dim=0)


def area(inside: Scores, outside: Scores) -> float:
    """How often one of the first is larger than one of the second; equal ones count half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left") + np.searchsorted(ordered, inside, side="right")
    return float(below.mean() / (2 * len(outside)))


def found_at(inside: Scores, outside: Scores, false_positives: float) -> tuple[float, float]:
    """True- and false-positive rate of the threshold that lets through at most that share of the second."""
    allowed = int(false_positives * len(outside))
    threshold = np.sort(outside)[len(outside) - 1 - allowed]
    return float((inside > threshold).mean()), float((outside > threshold).mean())


def _judge(inside: Scores, outside: Scores, rng: np.random.Generator) -> MembershipResult:
    areas = [area(rng.choice(inside, len(inside)), rng.choice(outside, len(outside))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(areas, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    true_positives, false_positives = found_at(inside, outside, FALSE_POSITIVES)
    return MembershipResult(
        auc=area(inside, outside),
        auc_low=float(low),
        auc_high=float(high),
        true_positive_rate=true_positives,
        false_positive_rate=false_positives,
        members=len(inside),
        non_members=len(outside),
    )


def _values(scores: Mapping[str, float]) -> Scores:
    return np.array(list(scores.values()), dtype=np.float64)
