"""Questions and answers for benchmarks, VQA-RAD's where it is here, else made up at the same lengths; who answers."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.compose import compose
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.data.tokenizer import SPECIALS, Tokenizer
from mumc_model.model import build_model
from mumc_model.vqa import VqaModel
from server.config import RunConfig
from server.orders import fit_vocabulary

SHARED = Path(__file__).resolve().parents[3] / "shared"
DATA = Path(os.environ.get("MED_VQA_DATA", SHARED / "data")) / "vqa_rad"
VOCABULARY = Path(os.environ.get("MUMC_BERT_VOCAB", SHARED / "vocab" / "bert-base-uncased.vocab.txt"))
WORDS, ANSWERS, ANSWER_TOKENS, SMALL_WORDS = 30_522, 450, 12, 1000
LENGTHS = {1: 30, 2: 24, 3: 14, 4: 9, 5: 7, 6: 5, 7: 4, 8: 3, 9: 2, 10: 2}
"""Tokens of VQA-RAD's distinct answers, in percent, for answers that are made up."""


@dataclass(frozen=True)
class Texts:
    """Questions with the image each one is about and their answers, and what reads them."""

    source: str
    rows: list[tuple[str, str, str]]
    tokenizer: Tokenizer

    @property
    def answers(self) -> list[str]:
        """The most frequent answers, in the order of their frequency."""
        return [answer for answer, _ in Counter(answer for _, _, answer in self.rows).most_common(ANSWERS)]


def texts() -> Texts:
    if DATA.is_dir() and VOCABULARY.is_file():
        found = json.loads((DATA / "trainset.json").read_text(encoding="utf-8"))
        rows = [(row["image_name"], row["question"], str(row["answer"]).strip().lower()) for row in found]
        return Texts("VQA-RAD", rows, Tokenizer.from_file(VOCABULARY))
    random = np.random.default_rng(0)
    words = [*SPECIALS, *(f"w{number}" for number in range(WORDS - len(SPECIALS)))]
    lengths = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    made_up = [f"w{random.zipf(1.4) % 400}" + _words(random, random.choice(lengths) - 1) for _ in range(2 * ANSWERS)]
    rows = [(str(number // 9), f"w1{_words(random, 7)}", text) for number, text in enumerate(made_up)]
    return Texts("made up", rows, Tokenizer(words))


def _words(random: np.random.Generator, count: int) -> str:
    return "".join(f" w{word}" for word in random.integers(0, 5000, count))


def recipe_of(shapes: str, words: int, *overrides: str) -> Recipe:
    asked = [f"model={shapes}", "finetune=mumc", f"model.text.vocab_size={words}", *overrides]
    return fit_vocabulary(load(RunConfig, compose("run", asked)).recipe, words)


def answering_model(recipe: Recipe) -> VqaModel:
    return VqaModel.of_encoders(build_model(recipe.model, 0), recipe.finetune).eval()
