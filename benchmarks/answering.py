"""How fast a site answers questions and learns to answer them, each as a ratio timed in turns in one run.

    ranking     one question's candidate answers weighed by `VqaModel.rank` (what candidates share is read once, the
                question's keys and values are computed once) and as the reference does it: the question's states tiled
                once a candidate, every candidate decoded whole, logits at every position, 128 candidates at once as
                in the paper. Both give the same scores, which is asserted. `speed_up` is the second's time over the
                first's. `share_of_matmul` is that of the first, as below; its matrix products alone are `gflop`.
                Answers are cut at the recipe's 12 tokens, or whole, as the reference reads them.
    finetuning  one step of `mumc_model.finetune` at 384 pixels with momentum distillation, batch 8, everything learns.
                `share_of_matmul`: floating-point operations of the step's matrix products a second (counted by torch,
                attention's recomputed scores left out), over the rate of one product of 2048 x 2048 matrices in single
                precision, timed between the steps with the same threads.
    evaluating  a split answered by `answer_questions`: seconds a question, and the share of it that is no ranking.
    asking      `mumc-site ask` on the CPU once its model is loaded, and what loading takes; 450 answers, 384 pixels.

Answers and questions are those of VQA-RAD's training split where it is here (MED_VQA_DATA, MUMC_BERT_VOCAB), else
made-up ones of the same lengths; images are noise. Weights are random, which changes no time.

    python benchmarks/answering.py [--json] [--parts ranking,finetuning,evaluating,asking] [--runs 3]
                                   [--shapes small,mid] [--threads 2]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asked.texts import ANSWER_TOKENS, SMALL_WORDS, WORDS, Texts, answering_model, recipe_of, texts
from asked.tiled import tiled

from client.own_model import forget_opened
from client.vqa.ask import ask_here
from mumc_model.answerer import Answerer
from mumc_model.answering import answer_questions
from mumc_model.candidates import Candidates
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.samples import VqaSamples
from mumc_model.data.site_writer import SiteWriter
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.finetune import VqaData, finetune
from mumc_model.model import build_model
from mumc_model.views import ImageTokens

CPU = torch.device("cpu")
SIDE = 2048


@torch.no_grad()
def ranking(shapes: str, known: Texts, words: int, answer_tokens: int | None, runs: int) -> dict[str, Any]:
    """One question, at the preset's own image size."""
    tokenizer = known.tokenizer if words == WORDS else Tokenizer.train(known.answers, words)
    recipe = recipe_of(shapes, tokenizer.size, "finetune.image_size=0")
    model, side = answering_model(recipe), recipe.model.vision.image_size
    ids_KA, mask_KA = tokenizer.answers(known.answers, answer_tokens)
    candidates = Candidates.build(known.answers, ids_KA, mask_KA)
    token_1SD = model.visual_encoder(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    ids_1L, mask_1L = tokenizer.questions([known.rows[0][1]], recipe.finetune.question_tokens)
    state_1LD = model.question_states(token_1SD, ids_1L, mask_1L)

    def ours() -> Tensor:
        return model.rank(state_1LD, mask_1L, candidates)[0]

    def theirs() -> Tensor:
        return tiled(model, state_1LD, mask_1L, ids_KA, mask_KA)

    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-7)
    mine, naive, rate = in_turns(runs, ours, theirs, product())
    gflop = counted(ours)
    return {
        "candidates": len(candidates),
        "nodes": sum(len(tree.token_N) for tree in candidates.trees),
        "answer_tokens": ids_KA.shape[1],
        "vocabulary": tokenizer.size,
        "seconds": mine,
        "tiled_seconds": naive,
        "speed_up": naive / mine,
        "gflop": gflop,
        "tiled_gflop": counted(theirs),
        "share_of_matmul": gflop / mine / (2 * SIDE**3 / 1e9 / rate),
    }


def product() -> Callable[[], object]:
    left, right, out = (torch.randn(SIDE, SIDE) for _ in range(3))
    return lambda: torch.mm(left, right, out=out)


def in_turns(runs: int, *actions: Callable[[], object]) -> list[float]:
    """Median seconds of each action; all are run once before anything is timed."""
    times: list[list[float]] = [[] for _ in actions]
    for turn in range(runs + 1):
        for action, taken in zip(actions, times, strict=True):
            started = time.perf_counter()
            action()
            if turn:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def backward_twice_forward(_, query, key, value, *__, out_shape=None, **___) -> int:
    """Attention's gradients; torch counts that its kernel computes the scores again, which is no useful work."""
    return 2 * sdpa_flop_count(query, key, value)


def counted(action: Callable[[], object]) -> float:
    """Billions of floating-point operations in matrix products."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    with FlopCounterMode(display=False, custom_mapping={attention: backward_twice_forward}) as counter:
        action()
    return counter.get_total_flops() / 1e9


def site_of(folder: Path, known: Texts, questions: int, images: int) -> SiteData:
    """A site with as many questions on noise; the texts are the first ones known."""
    random = np.random.default_rng(0)
    with SiteWriter(folder, "benchmark", unit="image") as writer:
        keys = [
            writer.add_image(Image.fromarray(random.integers(0, 256, (384, 384), np.uint8)), str(number))
            for number in range(images)
        ]
        for number, (_, question, answer) in enumerate(known.rows[:questions]):
            kind = {"answer_type": "OPEN", "question_type": "other", "split": "train"}
            writer.add_question(keys[number * images // questions], question, answer, patient_id=str(number), **kind)
    return read_site(folder)


def finetuning(shapes: str, known: Texts, runs: int) -> dict[str, Any]:
    recipe = recipe_of(shapes, known.tokenizer.size)
    recipe = replace(recipe, finetune=replace(recipe.finetune, steps=1))
    batch, model, rates, ends = recipe.finetune.batch_size, build_model(recipe.model, 0), [], []
    multiply = product()
    multiply()

    def learn(steps: int) -> None:
        settings = replace(recipe, finetune=replace(recipe.finetune, steps=steps))
        finetune(model, data, known.tokenizer, settings, device=CPU, seed=0, on_step=between)

    def between(_: int, __: float) -> None:
        started = time.perf_counter()
        multiply()
        rates.append(time.perf_counter() - started)
        ends.append((started, time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        site = site_of(Path(folder), known, 2 * batch, 2 * batch)
        data = VqaData.read(site, known.tokenizer, recipe.finetune.image_size, recipe.finetune.question_tokens)
        gflop = counted(lambda: learn(1))
        rates.clear(), ends.clear()
        learn(runs + 1)
    steps = [after[0] - before[1] for before, after in pairwise(ends)]
    seconds, rate = statistics.median(steps), 2 * SIDE**3 / 1e9 / statistics.median(rates)
    return {
        "seconds": seconds,
        "images_per_s": batch / seconds,
        "gflop": gflop,
        "matmul_gflop_per_s": rate,
        "share_of_matmul": gflop / seconds / rate,
    }


def evaluating(shapes: str, known: Texts, runs: int) -> dict[str, Any]:
    """A split of 32 questions about 16 images, as many a picture as VQA-RAD's test split has."""
    recipe = recipe_of(shapes, known.tokenizer.size)
    model, tokens = answering_model(recipe), recipe.finetune.answer_tokens
    candidates = Candidates.build(known.answers, *known.tokenizer.answers(known.answers, tokens))
    with tempfile.TemporaryDirectory() as folder:
        site = site_of(Path(folder), known, 32, 16)
        samples = VqaSamples(site, "train", known.tokenizer, recipe.finetune.image_size, 25)
        whole, seeing = in_turns(
            runs,
            lambda: answer_questions(model, candidates, samples, device=CPU),
            lambda: ImageTokens(model, samples, CPU, keep=True),
        )
    return {"seconds_a_question": whole / 32, "share_of_images": seeing / whole, "questions": 32, "images": 16}


def asking(shapes: str, known: Texts, runs: int) -> dict[str, Any]:
    """Loading alone, and the whole command's work; a question's own time is their difference."""
    recipe = recipe_of(shapes, known.tokenizer.size)
    with tempfile.TemporaryDirectory() as folder:
        model, picture = Path(folder) / "model", Path(folder) / "image.png"
        Answerer(model=answering_model(recipe), tokenizer=known.tokenizer, texts=tuple(known.answers)).save(model)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)).save(picture)
        question = known.rows[0][1]
        loaded = Answerer.open(model)

        def load_and_ask() -> None:
            # A command is a process of its own, which holds no model yet.
            forget_opened()
            ask_here(model, picture, question, method="", answers=[], top=5, device="cpu")

        opening, first, warm, rate = in_turns(
            runs,
            lambda: Answerer.open(model),
            load_and_ask,
            lambda: loaded.ask(picture, question, device=CPU),
            product(),
        )
        gflop = counted(lambda: loaded.ask(picture, question, device=CPU))
    return {
        "load_seconds": opening,
        "load_and_ask_seconds": first,
        "ask_seconds": first - opening,
        "ask_again_seconds": warm,
        "gflop": gflop,
        "share_of_matmul": gflop / warm / (2 * SIDE**3 / 1e9 / rate),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--parts", default="ranking,finetuning,evaluating,asking")
    parser.add_argument("--shapes", default="small,mid", help="of the fine-tuning steps")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; 1 where others use the cores")
    asked, known = parser.parse_args(), texts()
    torch.set_num_threads(asked.threads)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "ranking": lambda: {
            f"{name}{whole}": ranking(name, known, words, tokens, asked.runs)
            for name, words in (("mid", WORDS), ("tiny", SMALL_WORDS))
            for whole, tokens in (("", ANSWER_TOKENS), ("_whole", None))
        },
        "finetuning": lambda: {name: finetuning(name, known, asked.runs) for name in asked.shapes.split(",")},
        "evaluating": lambda: {"mid": evaluating("mid", known, 1)},
        "asking": lambda: {"small": asking("small", known, asked.runs)},
    }
    found = {name: parts[name]() for name in asked.parts.split(",")}
    report = {"benchmark": "answering", "texts": known.source, "threads": torch.get_num_threads(), **found}
    report["load"] = os.getloadavg()[0]
    if asked.json:
        print(json.dumps(report))
        return
    print(f"texts: {known.source}; threads: {report['threads']}; load: {report['load']:.1f}")
    for part, shapes in found.items():
        for name, row in shapes.items():
            print(f"{part:<11} {name:<9} " + "  ".join(f"{key} {value:,.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
