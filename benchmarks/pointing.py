"""Do explanations point at what a question is about, and do they speak of the model? On models made here, in minutes.

    phantom   one synthetic hospital; the questions are about its findings, the masks are what the generator drew
    slake     SLAKE's test questions that name an organ or a lesion, with its annotators' masks and boxes; left out
              where the set is not here (MED_VQA_DATA)

For either method of explanation: the share of questions whose hottest patch lies in the mask, what a random patch and
the image's centre hit, and the share of the heat inside, each with an interval that resamples images
(`mumc_model/pointing.py` says when a patch lies in a mask). Then the check with random weights: how alike the heat is
to the trained model's, by rank, once all weights are drawn anew, and the curve on the way there.

    python benchmarks/pointing.py [--json] [--parts phantom,slake] [--steps N] [--seed 0] [--threads 2] [--keep FOLDER]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.compose import compose
from configs.loader import load
from mumc_model.answerer import Answerer
from mumc_model.answering import answer_questions
from mumc_model.config import Recipe
from mumc_model.data.collate import CaptionDataset
from mumc_model.data.importers.slake import slake as import_slake
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.samples import VqaSamples
from mumc_model.data.slake_regions import grey_values, named, read_regions
from mumc_model.data.tokenizer import Tokenizer, vocabulary
from mumc_model.explain import METHODS, Asked, Method, heat_of
from mumc_model.finetune import VqaData, finetune
from mumc_model.model import build_model
from mumc_model.pointing import point, summarise
from mumc_model.sanity import cascade, depends_on_weights
from mumc_model.train import Pretrainer
from mumc_model.vqa import VqaModel
from server.config import RunConfig
from server.orders import fit_vocabulary

CPU = torch.device("cpu")
SHARED = Path(__file__).resolve().parents[2] / "shared"
SLAKE = Path(os.environ.get("MED_VQA_DATA", SHARED / "data")) / "slake"
ABOUT_A_FINDING = ("finding", "side", "size", "place", "presence", "choice")
"""Types of synthetic questions whose answer is read off the finding."""
STEPS = {"phantom": 1500, "slake": 500}
"""Of fine-tuning, and on the synthetic hospital of pre-training before it."""
BLOCK = 64
CHECKED = 64
"""Questions of the check with random weights."""

MaskOf = Callable[[int], np.ndarray | None]


@dataclass(frozen=True)
class Case:
    """A trained model, the questions that it answers, and what they are about."""

    answerer: Answerer
    samples: VqaSamples
    masks: dict[int, np.ndarray]
    """By row of the samples; questions about nothing that is outlined are missing."""
    trained_s: float | None
    """None for a model that was kept from an earlier run."""


def recipe_of(words: int, *overrides: str) -> Recipe:
    asked = ["model=tiny", "objective=tiny", "pretrain=tiny", "finetune=tiny", f"model.text.vocab_size={words}"]
    return fit_vocabulary(load(RunConfig, compose("run", [*asked, *overrides])).recipe, words)


def phantom(folder: Path, steps: int, seed: int) -> Case:
    """Encoders that learned from captions and then from questions, as at a site."""
    config = PhantomConfig(
        hospitals=1, images=1500, train_questions=3000, val_questions=100, test_questions=600, unlike=0.0
    )
    (root,) = write_hospitals(config, folder, seed)
    tokenizer = vocabulary("phantom")
    recipe = recipe_of(
        len(tokenizer.vocab), "model.vision.patch_size=8", f"finetune.steps={steps}", "finetune.freeze=none"
    )
    case = _train(read_site(root), tokenizer, recipe, steps, seed, folder / "phantom-model")

    def mask_of(row: int) -> np.ndarray | None:
        path = root / "masks" / Path(case.samples.image_keys[row]).name
        if case.samples.question_types[row] not in ABOUT_A_FINDING or not path.is_file():
            return None
        return np.asarray(Image.open(path)) > 0

    return _masked(case, mask_of)


def slake(folder: Path, steps: int, seed: int) -> Case:
    """A model that starts at random, as SLAKE has no captions, and learns from its English questions."""
    import_slake(SLAKE, folder / "slake", max_side=256)
    site = read_site(folder / "slake")
    texts = [text for row in site.vqa if row.split == "train" for text in (row.question, row.answer)]
    tokenizer = Tokenizer.train(texts, 2000)
    recipe = recipe_of(
        len(tokenizer.vocab),
        "model.vision.image_size=128",
        f"finetune.steps={steps}",
        "finetune.freeze=none",
        "finetune.question_tokens=24",
        "finetune.answer_tokens=10",
    )
    case = _train(site, tokenizer, recipe, 0, seed, folder / "slake-model")
    values = grey_values(SLAKE / "mask.txt")

    def mask_of(row: int) -> np.ndarray | None:
        regions = read_regions(SLAKE / "imgs" / Path(case.samples.image_keys[row]).stem, values)
        return named(regions, f"{case.samples.questions[row]} {case.samples.answers[row]}")

    return _masked(case, mask_of)


def _train(site: SiteData, tokenizer: Tokenizer, recipe: Recipe, pretraining: int, seed: int, folder: Path) -> Case:
    """A model trained now and put into `folder`, or the one that is there."""
    started, size = time.perf_counter(), recipe.model.vision.image_size
    data = VqaData.read(site, tokenizer, size, recipe.finetune.question_tokens)
    if folder.is_dir():
        return Case(Answerer.open(folder), data.test, {}, None)
    model = build_model(recipe.model, seed)
    if pretraining:
        captions = CaptionDataset(site, tokenizer, size, recipe.pretrain.caption_tokens, recipe.pretrain.crop_scale)
        trainer = Pretrainer(model, recipe, CPU)
        trainer.run(captions, first_step=0, steps=pretraining, total_steps=pretraining, seed=seed)
    found = finetune(model, data, tokenizer, recipe, device=CPU, seed=seed)
    answerer = Answerer(model=found.model.eval(), tokenizer=tokenizer, texts=found.candidates.texts)
    answerer.save(folder)
    return Case(answerer, data.test, {}, time.perf_counter() - started)


def _masked(case: Case, mask_of: MaskOf) -> Case:
    found = {row: mask for row in range(len(case.samples)) if (mask := mask_of(row)) is not None}
    return Case(case.answerer, case.samples, found, case.trained_s)


def asked_of(case: Case, rows: Sequence[int], answers: Sequence[str]) -> Asked:
    """Some questions with the answers that are explained, each row's own."""
    samples, index = case.samples, torch.tensor(rows)
    tokens = case.answerer.tokenizer.answers(answers, case.answerer.model.finetune.answer_tokens)
    pixels = samples.images(samples.image_of_N[index])
    return Asked(pixels, *samples.text(index), *tokens)


def heat(model: VqaModel, asked: Asked, method: Method) -> Tensor:
    """Heat BN, a block of questions at a time."""
    blocks = zip(*(part.split(BLOCK) for part in asked), strict=True)
    return torch.cat([heat_of(model, Asked(*block), method).patch_BN for block in blocks])


def measure(part: str, case: Case, seed: int) -> dict[str, Any]:
    """The games of all questions that are about something outlined, and the check."""
    model, rows = case.answerer.model, list(case.masks)
    replies = answer_questions(model, case.answerer.candidates, case.samples, device=CPU)
    asked = asked_of(case, rows, [replies[row].prediction for row in rows])
    right = np.array([replies[row].correct for row in rows], dtype=bool)
    cells, checks = [], {}
    for method in METHODS:
        started = time.perf_counter()
        found_BN = heat(model, asked, method)
        seconds = (time.perf_counter() - started) / len(rows)
        side = round(found_BN.shape[1] ** 0.5)
        games = [point(found_BN[place].view(side, side).numpy(), case.masks[row]) for place, row in enumerate(rows)]
        for group, chosen in (("all", np.ones_like(right)), ("right", right), ("wrong", ~right)):
            places = np.flatnonzero(chosen).tolist()
            if places:
                cells += _cells(part, method, group, [games[p] for p in places], [rows[p] for p in places], case, seed)
        checks[method] = check(case, asked, rows, method, seed) | {"seconds_a_question": seconds}
    return {
        "questions": len(rows),
        "grid": side,
        "accuracy_all_questions": float(np.mean([reply.correct for reply in replies])),
        "accuracy_these_questions": float(right.mean()),
        "trained_s": case.trained_s,
        "cells": cells,
        "random_weights": checks,
    }


def _cells(
    part: str, method: Method, group: str, games: Sequence[Any], rows: Sequence[int], case: Case, seed: int
) -> list[dict[str, Any]]:
    images = [case.samples.image_keys[row] for row in rows]
    found = asdict(summarise(games, images, np.random.default_rng(seed)))
    questions = found.pop("questions")
    return [
        {
            "factors": {"part": part, "method": method, "questions": group},
            "metric": metric,
            "value": mean,
            "ci95": [low, high],
            "n": questions,
            "seed": seed,
        }
        for metric, (mean, low, high) in found.items()
    ]


def check(case: Case, asked: Asked, rows: Sequence[int], method: Method, seed: int) -> dict[str, Any]:
    """The curve of rank correlations as weights are drawn anew, from the decoder down."""
    few = Asked(*(part[:CHECKED] for part in asked))
    curve = cascade(
        case.answerer.model,
        lambda model: heat(model.eval(), few, method),
        generator=torch.Generator().manual_seed(seed),
        clusters=[case.samples.image_keys[row] for row in rows[:CHECKED]],
    )
    return {
        "questions": len(few.ids_BL),
        "passed": depends_on_weights(curve),
        "curve": [{"random_down_to": step.part, "value": step.alike.mean, "ci95": step.alike[1:]} for step in curve],
    }


def text(report: dict[str, Any]) -> str:
    """One line a figure."""
    lines = []
    for part, found in report["parts"].items():
        lines.append(
            f"{part}: {found['questions']} questions, {found['grid']} x {found['grid']} patches, "
            f"{100 * found['accuracy_these_questions']:.1f} % answered right, "
            + (f"trained in {found['trained_s']:.0f} s" if found["trained_s"] else "a model that was kept")
        )
        for cell in found["cells"]:
            low, high = cell["ci95"]
            factors = f"{cell['factors']['method']:<10} {cell['factors']['questions']:<6}"
            lines.append(
                f"  {factors} {cell['metric']:<18} {100 * cell['value']:6.1f} ({100 * low:.1f} to {100 * high:.1f}) "
                f"n {cell['n']}"
            )
        for method, checked in found["random_weights"].items():
            lines.append(f"  {method}: random weights, {'passed' if checked['passed'] else 'FAILED'}")
            lines += [f"    {step['random_down_to']:<18} {step['value']:6.3f}" for step in checked["curve"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--parts", default="phantom,slake")
    parser.add_argument("--steps", type=int, help=f"of training, in place of {STEPS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="a folder for models and sites; models that are there are not trained"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    makers = {"phantom": phantom, "slake": slake}
    if unknown := set(options.parts.split(",")) - makers.keys():
        parser.error(f"--parts knows phantom and slake, and not {', '.join(sorted(unknown))}")
    chosen = [part for part in options.parts.split(",") if part != "slake" or SLAKE.is_dir()]
    report: dict[str, Any] = {"seed": options.seed, "parts": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for part in chosen:
            case = makers[part](folder, options.steps or STEPS[part], options.seed)
            report["parts"][part] = measure(part, case, options.seed)
    print(json.dumps(report, indent=1) if options.json else text(report))


if __name__ == "__main__":
    main()
