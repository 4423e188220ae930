"""How far apart chance, guessing from the question and a trained model lie on the synthetic hospitals.

A small network is trained on the labels of the captioned images and answers the test questions, about patients it has
never seen. `python benchmarks/phantom_learnability.py --json` takes less than a minute on one core.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.phantom_cases import FINDINGS, MODALITIES, NO_FINDING, ORGANS, PLACES, SIDES, SIZES
from mumc_model.data.records import CaptionRecord, VqaRecord, read_site
from mumc_model.evaluate import question_only
from mumc_model.statistics import bootstrap_mean

FACTS = {
    "modality": MODALITIES,
    "organ": ORGANS,
    "finding": (*FINDINGS, NO_FINDING),
    "side": SIDES,
    "size": SIZES,
    "place": PLACES,
}
UNKNOWN = -100
"""Target of a fact that a normal image does not have; the cross-entropy leaves it out."""


class Network(nn.Module):
    """Strided convolutions, maxima over the whole image (what) and its sixteenths (where), a linear head a fact."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in ((1, 24), (24, 48), (48, 96)):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GroupNorm(4, outer), nn.GELU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(96, 96, 3, padding=1), nn.GroupNorm(4, 96), nn.GELU())
        self.heads = nn.ModuleDict({fact: nn.Linear(17 * 96, len(values)) for fact, values in FACTS.items()})

    def forward(self, image_B1HW: Tensor) -> dict[str, Tensor]:
        """Logits by fact."""
        features_BCHW = self.body(image_B1HW)
        pooled = [F.adaptive_max_pool2d(features_BCHW, cells).flatten(1) for cells in (1, 4)]
        features_BF = torch.cat([4 * pooled[0], pooled[1]], dim=1)
        return {fact: head(features_BF) for fact, head in self.heads.items()}


def load(records: Sequence[CaptionRecord | VqaRecord]) -> tuple[Tensor, dict[str, Tensor]]:
    """Images about zero, and the index of each fact."""
    pixels = np.stack([np.asarray(Image.open(record.image)) for record in records])
    targets = {
        fact: torch.tensor([values.index(r.labels[fact]) if fact in r.labels else UNKNOWN for r in records])
        for fact, values in FACTS.items()
    }
    return torch.from_numpy(pixels)[:, None].float() / 127.5 - 1, targets


def train(images: Tensor, targets: dict[str, Tensor], steps: int, batch: int, seed: int) -> Network:
    """The network after `steps` steps of AdamW on batches that are shifted by up to a twentieth of the image."""
    reach = images.shape[-1] // 20
    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (batch,))
        shift = torch.randint(-reach, reach + 1, (2,)).tolist()
        logits = network(torch.roll(images[rows], shift, dims=(2, 3)))
        loss = torch.stack([F.cross_entropy(logits[fact], targets[fact][rows]) for fact in FACTS]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def answer(question: VqaRecord, facts: dict[str, str]) -> str:
    """What follows for the question from the facts read off its image."""
    if question.question_type == "place":
        return f"{facts['place']} {facts['side']}"
    if question.answer_type == "OPEN":
        return facts[question.question_type]
    named = set(question.question.split()) & {value for values in FACTS.values() for value in values}
    found = named & set(facts.values())
    return ("yes" if found else "no") if question.question_type == "presence" else min(found or named)


def measure(config: PhantomConfig, folder: Path, steps: int, batch: int, seed: int) -> dict[str, object]:
    """Times, sizes and cells of one drawing of the hospitals."""
    start = time.perf_counter()
    sites = [read_site(path) for path in write_hospitals(config, folder, seed)]
    drawn_s = time.perf_counter() - start
    captioned = list({record.image: record for site in sites for record in site.captions}.values())
    start = time.perf_counter()
    network = train(*load(captioned), steps, batch, seed)
    trained_s = time.perf_counter() - start

    learned = [record for site in sites for record in site.vqa if record.split == "train"]
    asked = [record for site in sites for record in site.vqa if record.split == "test"]
    images, targets = load(asked)
    with torch.no_grad():
        best = {fact: logits.argmax(dim=1) for fact, logits in network(images).items()}
    read = [{fact: FACTS[fact][int(best[fact][row])] for fact in FACTS} for row in range(len(asked))]
    answers = {
        "question-only": question_only(learned, asked),
        "trained": [answer(question, facts) for question, facts in zip(asked, read, strict=True)],
    }
    cells = [
        cell(f"image: {fact}", "trained", (best[fact] == target)[target != UNKNOWN], images_of(asked, target), seed)
        for fact, target in targets.items()
    ]
    for group, rows in groups(asked).items():
        guesses = [chance(asked[row]) for row in rows]
        cells.append(cell(group, "chance", guesses, [str(asked[row].image) for row in rows], seed))
        for method, texts in answers.items():
            right = [texts[row] == asked[row].answer for row in rows]
            cells.append(cell(group, method, right, [str(asked[row].image) for row in rows], seed))
    return {"unlike": config.unlike, "drawn_s": drawn_s, "trained_s": trained_s, "cells": cells}


def chance(question: VqaRecord) -> float:
    """Accuracy of a uniform guess by someone who knows which answers the question allows."""
    if question.answer_type == "CLOSED":
        return 0.5
    return 0.25 if question.question_type == "place" else 1 / len(FACTS[question.question_type])


def images_of(records: Sequence[VqaRecord], target: Tensor) -> list[str]:
    """The cluster of each record that has this fact."""
    return [str(record.image) for record, index in zip(records, target.tolist(), strict=True) if index != UNKNOWN]


def groups(asked: Sequence[VqaRecord]) -> dict[str, list[int]]:
    """Rows by group: all, open, closed, and each type of question."""
    rows = range(len(asked))
    found = {"all": list(rows)}
    for name in ("OPEN", "CLOSED"):
        found[name.lower()] = [row for row in rows if asked[row].answer_type == name]
    for name in sorted({question.question_type for question in asked}):
        found[name] = [row for row in rows if asked[row].question_type == name]
    return {name: members for name, members in found.items() if members}


def cell(group: str, method: str, right: Sequence[float] | Tensor, clusters: list[str], seed: int) -> dict[str, object]:
    """One figure with its interval, in the schema of report.json."""
    values = np.asarray(right, dtype=float)
    interval = bootstrap_mean(values, clusters, np.random.default_rng(seed))
    return {
        "factors": {"questions": group, "method": method},
        "metric": "accuracy",
        "value": interval.mean,
        "ci95": [interval.low, interval.high],
        "n": len(values),
        "seed": seed,
    }


def table(cells: list[dict[str, object]]) -> str:
    """The accuracies, one line a group of questions."""
    values: dict[str, dict[str, float]] = {}
    for entry in cells:
        factors = entry["factors"]
        values.setdefault(factors["questions"], {})[factors["method"]] = entry["value"]
    methods = ("chance", "question-only", "trained")
    lines = [f"{'questions':<20}" + "".join(f"{method:>15}" for method in methods)]
    for group, row in values.items():
        lines.append(f"{group:<20}" + "".join(f"{row[m]:>15.3f}" if m in row else f"{'':>15}" for m in methods))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unlike", type=float, default=0.0)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=500, help="captioned images at each of 4 hospitals")
    parser.add_argument("--contrast", type=float, default=1.0)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = PhantomConfig(
        images=options.images,
        captions_per_image=1,
        test_questions=300,
        unlike=options.unlike,
        image_size=options.image_size,
        contrast=options.contrast,
        noise=options.noise,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = measure(config, Path(folder), options.steps, options.batch, options.seed)
    if options.json:
        print(json.dumps(vars(options) | result, indent=1))
    else:
        print(table(result["cells"]))
        print(f"drawn in {result['drawn_s']:.1f} s, trained in {result['trained_s']:.1f} s")


if __name__ == "__main__":
    main()
