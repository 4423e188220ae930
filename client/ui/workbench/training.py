"""The Training tab: how far this site's runs are, their losses, its own model, and its last evaluation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.own_model import OWN_MODEL
from client.ui.look import figure, heading, paragraph, table
from client.ui.workbench.plots import losses_svg, trust_svg
from client.ui.workbench.records import entries_of, losses_by_run, run_rows, tested_rows, withheld
from mumc_model.errors import DataError
from mumc_model.pretrained import read_config
from mumc_model.scorecard_text import KINDS, NAMES, confidence_text, out_of_list_text, percent
from protocol.hashchain import Entry

EVALUATION = "state/evaluation"
TERMS = (
    "total is the weighted sum of the others: itm matching of image and text, mlm masked words, mim masked patches, "
    "mcl contrast across image and text, ucl contrast within each"
)


def training_html(root: Path, model: Path | None) -> str:
    """Runs, the model that answers, and the last evaluation.

    Raises:
        ProtocolError: the log cannot be read.
        DataError: the evaluation is damaged.
    """
    return "".join([_runs(entries_of(root)), _model(root, model or root / OWN_MODEL), _evaluation(root)])


def _runs(entries: Sequence[Entry]) -> str:
    rows, parts = run_rows(entries), [heading("Runs of the federation")]
    if not rows:
        return "".join([*parts, paragraph("This site has taken part in no run yet, so there are no losses to show.")])
    heads = ["run", "rounds answered", "steps", "time (UTC)", "now"]
    parts.append(table("Runs at this site, the newest first", heads, rows))
    if drawn := losses_by_run(entries):
        # The newest run; the log has the others.
        run, losses = next(iter(drawn.items()))
        parts.append(figure(losses_svg(losses, "losses"), f"Losses of run {run} at this site, by round; {TERMS}."))
        parts.append(_last_losses(run, losses))
    if kept := withheld(entries):
        parts.append(paragraph(f"Held back, so neither sent nor kept in the log: {', '.join(kept)}.", "faint"))
    if tested := tested_rows(entries):
        parts.append(table("What runs reported of this site's questions", ["run", "asked", "numbers"], tested))
    return "".join(parts)


def _last_losses(run: str, losses: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    rows = [
        (name, f"{points[0][1]:.4f} (round {points[0][0]})", f"{points[-1][1]:.4f} (round {points[-1][0]})")
        for name, points in losses.items()
    ]
    return table(f"Losses of run {run}", ["loss", "first", "last"], rows)


def _model(root: Path, folder: Path) -> str:
    parts = [heading("The model that answers here")]
    if not (folder / "model.safetensors").is_file():
        return "".join([*parts, paragraph(f"There is none in {folder}; make one with: mumc-site finetune {root}")])
    facts = read_config(folder).get("facts", {})
    rows = [("folder", str(folder)), *((str(name), str(value)) for name, value in facts.items())]
    said = "Losses of fine-tuning are shown while mumc-site finetune works, and are not kept."
    return "".join([*parts, table("What its folder says", [], rows), paragraph(said, "faint")])


def _evaluation(root: Path) -> str:
    path, parts = root / EVALUATION / "evaluation.json", [heading("The last evaluation")]
    if not path.is_file():
        return "".join([*parts, paragraph(f"Not measured; answer the test questions with: mumc-site evaluate {root}")])
    card = read_card(path)
    protocol = card["protocol"]
    asked = (
        f"{protocol['split']}; {protocol['asked']} split, {protocol['n']} questions on {protocol['images']} images. "
        f"Exact match, normaliser {card['normaliser']}; weights: {card['selection']}. 95 % intervals over images."
    )
    return "".join(
        [
            *parts,
            paragraph(asked),
            table("Percent right", ["", *KINDS], score_rows(card)),
            figure(trust_svg(card["confidence"]), "Probability against accuracy, and risk against coverage"),
            paragraph(confidence_text(card["confidence"])),
            paragraph(out_of_list_text(card["out_of_list"])),
            table(
                "Percent right by kind of question",
                ["question type", "n", "percent right"],
                [(name, str(score["n"]), percent(score)) for name, score in _by_type(card)],
            ),
        ]
    )


def score_rows(card: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The model and what it is to be read beside, as `mumc-site evaluate` prints them."""
    rows = {f"model ({card['method']})": card["scores"]} | {
        NAMES[name]: found for name, found in card["beside"].items()
    }
    return [(name, *(percent(scores[kind]) for kind in KINDS)) for name, scores in rows.items()]


def read_card(path: Path) -> dict[str, Any]:
    """An evaluation that `mumc-site evaluate` wrote.

    Raises:
        DataError: it cannot be read.
    """
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if card["schema_version"] != 1:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path} cannot be read; evaluate again with: mumc-site evaluate SITE") from None
    return card


def _by_type(card: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(card["scores"]["by_question_type"].items())
