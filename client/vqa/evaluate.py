"""An evaluation at a site's own command line: every question of a split answered, and what is kept of it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from client.own_model import OWN_MODEL
from client.site import Site
from client.vqa.examiners import examiner
from mumc_model.answerer import is_answering, keep_measured
from mumc_model.candidates import Scoring
from mumc_model.data.files import write_atomically
from mumc_model.evaluate import AnswerRow
from mumc_model.model import MumcModel
from mumc_model.normalise import NORMALISER, normalise_answer
from mumc_model.pretrained import load_tokenizer, read_config
from mumc_model.retrieval import retrieve
from mumc_model.scorecard import Card, Evaluated, scorecard
from mumc_model.scorecard_text import draw, to_markdown
from mumc_model.selective import AccuracyTable
from mumc_model.views import OnAnswered, View

EVALUATION = "evaluation.json"
ANSWERS = "answers.jsonl"
"""Beside an evaluation: every answered question of it, for the site's own eyes and for pairing two evaluations."""
SHEET, DRAWING = "evaluation.md", "evaluation.svg"
"""What an evaluation is for people to read."""
VIEWS: tuple[tuple[str, View], ...] = (("blank_image", "blank"), ("shuffled_image", "shuffled"))


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
    answers = examiner(site, model_folder, method, normaliser, scoring, split)
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
    if is_answering(model_folder) or not site.data.captions:
        return None
    model, tokenizer = MumcModel.from_pretrained(model_folder), load_tokenizer(model_folder)
    found = retrieve(model, site.data, tokenizer, device=site.device, precision=site.config.precision)
    return found.describe(np.random.default_rng(0))


def write_evaluation(card: Card, folder: Path, title: str) -> None:
    """Write `evaluation.json`, `.md` and `.svg`."""
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / EVALUATION, (text + "\n").encode())
    write_atomically(folder / SHEET, to_markdown(card, title).encode())
    draw(card, folder / DRAWING)


def keep_answers(rows: Sequence[AnswerRow], folder: Path) -> None:
    """Keep every answered question beside an evaluation; they are about patients and never leave the site.

    What an earlier evaluation says of itself goes first: beside other answers it would be wrong.
    """
    for name in (EVALUATION, SHEET, DRAWING):
        (folder / name).unlink(missing_ok=True)
    lines = [json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows]
    write_atomically(folder / ANSWERS, "".join(lines).encode())
