"""What short lists cover over random splits, and what the familiarity gate stops, for a site's own answering model.

Coverage: the validation and test questions' scores are pooled and dealt 2,000 times into as many calibration questions
as validation has and the rest. Beside the mean stand theory's value and the 95 % interval that the mean of so many
splits lies in if the promise holds. (Step and temperature were chosen on validation; `mumc-site evaluate` says what the
one real split gave.)

Gate: the share referred as unfamiliar of the site's test questions; of noise, of pictures like photographs and of the
images of other sites, each asked about in a usual question; of usual images in random words, letters and other topics.

    python benchmarks/trust.py SITE [--model FOLDER] [--foreign SITE ...] [--risk 0.1] [--json]
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import betabinom
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mumc_model.answerer import Answerer
from mumc_model.answering import right_candidates
from mumc_model.conformal import AnswerSets, scores
from mumc_model.data.records import read_site
from mumc_model.data.samples import VqaSamples
from mumc_model.data.transforms import normalise
from mumc_model.ensemble import weigh_together
from mumc_model.familiarity import Gate, image_features, question_features
from mumc_model.trust import features

CPU = torch.device("cpu")
SPLITS, DRAWN = 2000, 100
TOPICS = ("what is the capital of france", "please write a poem", "who won the match", "how do i bake bread")

Pixels = np.ndarray[Any, Any]


def coverage(answerer: Answerer, parts: Sequence[VqaSamples], risk: float) -> dict[str, float]:
    """Mean coverage over random splits of the pooled questions, and what theory says of it."""
    pooled, rng = np.concatenate([_scores(answerer, part) for part in parts]), np.random.default_rng(0)
    own, new = len(parts[0]), len(parts[1])
    held = []
    for _ in range(SPLITS):
        order = rng.permutation(pooled)
        bound = AnswerSets.of(order[:own]).bound(risk)
        held.append(float((order[own:] <= bound).mean()) if math.isfinite(bound) else 1.0)
    rank = math.ceil((own + 1) * (1 - risk))
    theory = betabinom(new, rank, own + 1 - rank)
    error = 1.96 * theory.std() / new / math.sqrt(SPLITS)
    return {"mean": float(np.mean(held)), "theory": theory.mean() / new, "half_width": error, "splits": SPLITS}


def gate(answerer: Answerer, test: VqaSamples, foreign: Sequence[Path]) -> dict[str, float]:
    """Share referred as unfamiliar of each kind of image and question."""
    found, size, rng = answerer.trust.gate, answerer.model.visual_encoder.config.image_size, np.random.default_rng(0)
    if found is None:
        sys.exit("this model was validated on nothing; fine-tune it at a site with validation questions")
    images, words = features(answerer.model, test, CPU)
    usual = [at for at in range(len(test)) if _referred(found, images[at : at + 1], words[at : at + 1]) == 0]
    usual_images, usual_words = (part[usual].repeat(1 + 2000 // len(usual), 1) for part in (images, words))
    shares = {"test questions": 1 - len(usual) / len(test)}
    drawn = {
        "noise": [rng.integers(0, 256, (size, size, 3)) for _ in range(DRAWN)],
        "grey noise": [np.repeat(rng.integers(0, 256, (size, size, 1)), 3, axis=2) for _ in range(DRAWN)],
        "like photographs": [_photograph(rng, size) for _ in range(DRAWN)],
    }
    for name, pixels in drawn.items():
        shares[name] = _referred(found, _image_points(answerer, pixels), usual_words)
    for site in foreign:
        points = features(answerer.model, _samples(answerer, site, "test"), CPU)[0].unique(dim=0)
        shares[f"images of {site.name}"] = _referred(found, points, usual_words)
    vocabulary = [word for word in answerer.tokenizer.vocab if word.isalpha() and len(word) > 2]
    letters = list("abcdefghijklmnopqrstuvwxyz")
    asked = {
        "random words": [" ".join(rng.choice(vocabulary, 7)) for _ in range(DRAWN)],
        "random letters": [" ".join("".join(rng.choice(letters, 6)) for _ in range(5)) for _ in range(DRAWN)],
        "other topics": list(TOPICS),
    }
    for name, texts in asked.items():
        shares[name] = _referred(found, usual_images, _word_points(answerer, texts))
    return shares


def _referred(found: Gate, image_BE: Tensor, word_BE: Tensor) -> float:
    pairs = list(zip(image_BE.split(1), word_BE.split(1), strict=False))
    return sum(usual.joint <= usual.level for usual in (found.judge(*pair) for pair in pairs)) / len(pairs)


def _scores(answerer: Answerer, samples: VqaSamples) -> Pixels:
    probability_NK = weigh_together(answerer, samples, device=CPU, calibration=answerer.calibration)
    return scores(probability_NK, right_candidates(answerer.texts, samples))


def _samples(answerer: Answerer, site: Path, split: str) -> VqaSamples:
    size, tokens = answerer.model.visual_encoder.config.image_size, answerer.model.finetune.question_tokens
    return VqaSamples(read_site(site), split, answerer.tokenizer, size, tokens)


@torch.no_grad()
def _image_points(answerer: Answerer, pixels: Sequence[Pixels]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pixels).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
    return image_features(answerer.model.visual_encoder.patch_embed(normalise(stacked)))


@torch.no_grad()
def _word_points(answerer: Answerer, texts: Sequence[str]) -> Tensor:
    ids_BL, mask_BL = answerer.tokenizer.questions(texts, answerer.model.finetune.question_tokens)
    return question_features(answerer.model.text_encoder.encode(ids_BL, mask_BL), mask_BL)


def _photograph(rng: np.random.Generator, size: int) -> Pixels:
    """Sky above ground with coloured things before it, and soft light."""
    height = np.linspace(0, 1, size)[:, None, None]
    picture = (1 - height) * rng.integers(100, 256, 3) + height * rng.integers(0, 200, 3) + np.zeros((size, size, 1))
    rows, columns = np.mgrid[:size, :size]
    for _ in range(6):
        row, column, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(size / 12, size / 4)
        picture[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = rng.integers(0, 256, 3)
    light = Image.fromarray(rng.integers(0, 60, (8, 8, 3), dtype=np.uint8))
    light = light.resize((size, size), Image.Resampling.BILINEAR)
    pixels: Pixels = np.clip(picture + np.asarray(light, dtype=float) - 30, 0, 255)
    return pixels


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--model", type=Path, help="without it the site's own")
    parser.add_argument("--foreign", type=Path, nargs="*", default=[], help="sites whose images are foreign here")
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    answerer = Answerer.open(given.model or given.site / "state" / "vqa")
    parts = [_samples(answerer, given.site, split) for split in ("val", "test")]
    found = {"coverage": coverage(answerer, parts, given.risk), "gate": gate(answerer, parts[1], given.foreign)}
    if given.json:
        print(json.dumps(found, indent=1))
        return
    held = found["coverage"]
    print(
        f"coverage over {SPLITS} random splits: {100 * held['mean']:.2f} %, by theory {100 * held['theory']:.2f} "
        f"(± {100 * held['half_width']:.2f}) %"
    )
    for name, share in found["gate"].items():
        print(f"referred as unfamiliar, {name}: {100 * share:.0f} %")


if __name__ == "__main__":
    main()
