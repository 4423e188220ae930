"""What short lists lose by using one set of validation questions for everything, and what a split of it would cost.

A tiny model is fine-tuned on a public set from random weights, and its probabilities at every look are kept for all
questions that are not trained on. These are dealt anew again and again into N questions for validation and the rest,
on which is measured. Four ways to come to a bound:

    fixed      step and temperatures of the whole pool: nothing is chosen, so what is left is the quantile's luck
    together   step, temperatures and quantile on all N, as `mumc_model.trust` does
    scores     step on all N, temperatures on one half, quantile on the other
    halves     step and temperatures on one half, quantile on the other

For each: mean coverage and its standard deviation over the deals, the share of deals whose coverage falls 5 points or
more short of the promise, answers in a list, right answers of the step, deals without any list; in percent but for the
answers in a list. Where images are dealt, all questions about one go together.

    python benchmarks/conformal_split.py SITE [--risk 0.1] [--by question,image] [--sizes 50,100,200,400,1000]
                                         [--deals 300] [--steps 600] [--keep FILE.npz] [--json]

SITE is a folder as `mumc-site import slake|vqa_rad` writes it. With --keep the probabilities are kept, and taken from
there the next time.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mumc_model.finetune as finetuning
from configs.compose import compose
from configs.loader import load
from mumc_model.answering import right_candidates
from mumc_model.calibration import Calibration, calibrate
from mumc_model.conformal import RISK, quantile, scores
from mumc_model.data.records import read_site
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.model import build_model
from mumc_model.question_types import QuestionTypes
from server.config import RunConfig
from server.orders import fit_vocabulary

SIDE, WORDS, SHORT = 96, 3000, 0.05
RECIPE = ("model=tiny", f"model.vision.image_size={SIDE}", "finetune=tiny", "finetune.freeze=none")


@dataclass(frozen=True)
class Pool:
    """All questions that no look trained on. Dimensions: L looks, N questions, K candidates."""

    probability_LNK: Tensor
    right_NK: Tensor
    types: list[str]
    images: np.ndarray[Any, Any]


def pool(folder: Path, steps: int) -> Pool:
    """What a model of this site's training questions says of all others at each look."""
    site = read_site(folder)
    site = replace(site, vqa=tuple(row if row.split == "train" else replace(row, split="val") for row in site.vqa))
    tokenizer = Tokenizer.train([text for row in site.vqa for text in (row.question, row.answer)], WORDS)
    asked = [*RECIPE, f"model.text.vocab_size={tokenizer.size}", f"finetune.steps={steps}"]
    recipe = fit_vocabulary(load(RunConfig, compose("run", asked)).recipe, tokenizer.size)
    data = finetuning.VqaData.read(site, tokenizer, SIDE, recipe.finetune.question_tokens)
    looks, ranked = [], finetuning.rank_questions

    def kept(*given: Any) -> Tensor:
        looks.append(ranked(*given))
        print(f"look {len(looks)}", file=sys.stderr)
        return looks[-1]

    with patch.object(finetuning, "rank_questions", kept):
        found = finetuning.finetune(
            build_model(recipe.model, 0), data, tokenizer, recipe, device=torch.device("cpu"), seed=0
        )
    types = QuestionTypes.of(data.train.questions, data.train.question_types)
    return Pool(
        torch.stack(looks),
        right_candidates(found.candidates.texts, data.val),
        [types.guess(question) for question in data.val.questions],
        np.unique(data.val.image_keys, return_inverse=True)[1],
    )


def kept_pool(folder: Path, steps: int, keep: Path | None) -> Pool:
    if keep and keep.is_file():
        found = np.load(keep)
        parts = (torch.from_numpy(found[name]) for name in ("probability", "right"))
        return Pool(*parts, found["types"].tolist(), found["images"])
    made = pool(folder, steps)
    if keep:
        values = {"probability": made.probability_LNK.numpy(), "right": made.right_NK.numpy()}
        np.savez(keep, types=np.array(made.types), images=made.images, **values)
    return made


def deal(made: Pool, size: int, by: str, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two halves of as many validation questions, and the rest; whole images where images are dealt."""
    owners = made.images if by == "image" else np.arange(len(made.images))
    order = rng.permutation(owners.max() + 1)[owners].argsort(kind="stable")
    owner = owners[order]
    # A deal ends where an image does.
    ends = [_end(owner, at) for at in (size // 2, size)]
    first, second, rest = np.split(order, ends)
    return tuple(torch.from_numpy(part) for part in (first, second, rest))


def _end(owner: np.ndarray[Any, Any], at: int) -> int:
    while at < len(owner) and owner[at] == owner[at - 1]:
        at += 1
    return at


def best_look(made: Pool, of_M: Tensor) -> int:
    """The look that answers most of these questions, as fine-tuning chooses it: among equals the surer."""
    confidence_LM, best_LM = made.probability_LNK[:, of_M].max(dim=2)
    right_LM = made.right_NK[of_M].gather(1, best_LM.T).T
    sure_L = torch.where(right_LM, confidence_LM, -confidence_LM).mean(1)
    ranked = [
        (int(right), float(sure), look) for look, (right, sure) in enumerate(zip(right_LM.sum(1), sure_L, strict=True))
    ]
    return max(ranked)[2]


def measured(made: Pool, look: int, warm: Calibration, own_M: Tensor, new_M: Tensor, risk: float) -> dict[str, float]:
    """What a quantile over `own_M` comes to on new questions."""

    def calibrated(of_M: Tensor) -> Tensor:
        return warm.apply(made.probability_LNK[look, of_M], [made.types[at] for at in of_M.tolist()])

    bound = quantile(scores(calibrated(own_M), made.right_NK[own_M]), risk)
    probability_NK, right_NK = calibrated(new_M), made.right_NK[new_M]
    best_N = probability_NK.argmax(1, keepdim=True)
    listed_NK = (1 - probability_NK.double() <= bound + 1e-9).scatter(1, best_N, True)
    return {
        "coverage": float((listed_NK & right_NK).any(1).double().mean()),
        "answers": float(listed_NK.sum(1).double().mean()),
        "right": float(right_NK.gather(1, best_N).double().mean()),
        "none": float(not np.isfinite(bound)),
    }


def fitted(made: Pool, look: int, of_M: Tensor) -> Calibration:
    return calibrate(made.probability_LNK[look, of_M], made.right_NK[of_M], [made.types[at] for at in of_M.tolist()])


def compared(made: Pool, size: int, by: str, deals: int, risk: float) -> dict[str, dict[str, float]]:
    """Each way over the same deals; deals without any list are counted and left out of the rest."""
    rng, found = np.random.default_rng(0), defaultdict(list)
    everything = torch.arange(len(made.images))
    chosen = best_look(made, everything)
    settled = fitted(made, chosen, everything)
    for _ in range(deals):
        first_M, second_M, new_M = deal(made, size, by, rng)
        both_M = torch.cat([first_M, second_M])
        of_both, of_first = best_look(made, both_M), best_look(made, first_M)
        found["fixed"].append(measured(made, chosen, settled, both_M, new_M, risk))
        found["together"].append(measured(made, of_both, fitted(made, of_both, both_M), both_M, new_M, risk))
        found["scores"].append(measured(made, of_both, fitted(made, of_both, first_M), second_M, new_M, risk))
        found["halves"].append(measured(made, of_first, fitted(made, of_first, first_M), second_M, new_M, risk))
    return {way: _summary(rows, risk) for way, rows in found.items()}


def _summary(rows: list[dict[str, float]], risk: float) -> dict[str, float]:
    columns = {name: np.array([row[name] for row in rows if not row["none"]]) for name in rows[0]}
    if not len(columns["coverage"]):
        return {"no list": 100.0}
    return {
        "coverage": 100 * columns["coverage"].mean(),
        "sd": 100 * columns["coverage"].std(),
        "short": 100 * (columns["coverage"] < 1 - risk - SHORT).mean(),
        "answers": columns["answers"].mean(),
        "right": 100 * columns["right"].mean(),
        "no list": 100 * np.mean([row["none"] for row in rows]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--risk", type=float, default=RISK, help="with more unlisted answers than it there is no list")
    parser.add_argument("--by", default="question,image")
    parser.add_argument("--sizes", default="50,100,200,400,1000")
    parser.add_argument("--deals", type=int, default=300)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    made = kept_pool(given.site, given.steps, given.keep)
    sizes = [int(size) for size in given.sizes.split(",") if int(size) <= 0.7 * len(made.images)]
    found = {
        by: {size: compared(made, size, by, given.deals, given.risk) for size in sizes} for by in given.by.split(",")
    }
    shape = {"looks": len(made.probability_LNK), "questions": len(made.images), "images": int(made.images.max()) + 1}
    if given.json:
        print(
            json.dumps(
                {"benchmark": "conformal_split", **shape, "risk": given.risk, "deals": given.deals, "found": found}
            )
        )
        return
    print(", ".join(f"{name}: {count}" for name, count in shape.items()))
    for by, by_size in found.items():
        for size, ways in by_size.items():
            for way, row in ways.items():
                print(f"{by:<9}{size:<6}{way:<9}" + "  ".join(f"{name} {value:.2f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
