"""The board's facts of a site, from what lies in its folder: evaluations, log, privacy ledger, its own prices."""

from pathlib import Path

import numpy as np

from client.board.answers import FEDERATED, LOCAL, NO_GUESS, Evaluation, default_evaluation, paired, read_evaluation
from client.board.compare import compare
from client.board.facts import BoardFacts, Comparison, NotMeasured, Privacy
from client.board.prices import costs, read_prices
from client.board.traffic import effort_of
from client.config import SiteConfig, read_site_config
from client.privacy.errors import LedgerError, PolicyError
from client.privacy.ledger import Ledger
from client.privacy.report import uncharged_runs

SMALLEST_GROUP = 10
"""Fewest answers of a group that is shown, unless the site's limits ask for more."""
WITHOUT = {
    FEDERATED: NotMeasured(
        "accuracy of the federated model", "it was not evaluated here (mumc-site evaluate SITE, or --federated FOLDER)"
    ),
    LOCAL: NotMeasured(
        "accuracy of a local-only model",
        "none was evaluated here (mumc-site evaluate SITE --model FOLDER --out SITE/state/evaluation-local)",
    ),
}


def of_site(root: Path, day: str, federated: Path | None = None, local: Path | None = None) -> BoardFacts:
    """What the board of the site in this folder is told.

    Args:
        root: The site's folder.
        day: On which the page is made.
        federated: Folder with answers of the federated model; by default the site's last evaluation or run.
        local: The same of a model that no federation has trained.

    Raises:
        ConfigurationError: a price in site.yaml cannot be.
        DataError: the answers of an evaluation cannot be read.
    """
    config = read_site_config(root)
    prices = read_prices(config.board)
    pair = _evaluation(root, FEDERATED, federated), _evaluation(root, LOCAL, local)
    effort = effort_of(root, prices)
    return BoardFacts(
        name=prices.hospital or config.name,
        about="A model that was trained together with other hospitals, beside one that only this hospital has trained, "
        "on this hospital's own test questions.",
        day=day,
        simulated="",
        comparison=_comparison(pair, config),
        guess=pair[0].guess if isinstance(pair[0], Evaluation) else NO_GUESS,
        privacy=privacy_of(root, config),
        effort=effort,
        costs=costs(prices, effort),
        notes=_notes(pair),
    )


def privacy_of(root: Path, config: SiteConfig) -> Privacy:
    """What the site's ledger says; a ledger that cannot be believed says nothing."""
    try:
        ledger = Ledger.open(root)
        uncharged = len(uncharged_runs(root))
        charged = bool(ledger.reservations)
    except LedgerError:
        return _unknown(config.unit, "the privacy ledger cannot be believed as it is", 0)
    try:
        policy = ledger.policy()
    except PolicyError:
        if charged:
            return _unknown(config.unit, "no signed privacy policy is in force", uncharged)
        return Privacy.without(config.unit, uncharged)
    return Privacy(
        kind="bounded",
        unit=policy.unit,
        epsilon=ledger.epsilon(),
        cap=policy.epsilon,
        delta=policy.delta,
        uncharged=uncharged,
    )


def _unknown(unit: str, why: str, uncharged: int) -> Privacy:
    names = ("privacy spent", "cap of the privacy budget", "delta")
    spent, cap, delta = (NotMeasured(name, why) for name in names)
    return Privacy(kind="unknown", unit=unit, epsilon=spent, cap=cap, delta=delta, uncharged=uncharged)


def _evaluation(root: Path, place: str, given: Path | None) -> Evaluation | NotMeasured:
    folder = given or default_evaluation(root, place)
    return read_evaluation(folder) if folder else WITHOUT[place]


def _comparison(
    pair: tuple[Evaluation | NotMeasured, Evaluation | NotMeasured], config: SiteConfig
) -> Comparison | NotMeasured:
    marks = paired(*pair)
    limits = config.policy.runs
    smallest = max(SMALLEST_GROUP, limits.smallest_count if limits else 0)
    if isinstance(marks, NotMeasured):
        return marks
    if len(marks.images) < smallest:
        return NotMeasured("accuracy", f"there are fewer than {smallest} test questions, too few to be shown")
    return compare(marks, smallest, np.random.default_rng(0))


def _notes(pair: tuple[Evaluation | NotMeasured, Evaluation | NotMeasured]) -> tuple[str, ...]:
    """How each model's weights were chosen, and how its answers were compared with the truth."""
    names = ("federated model", "local-only model")
    found = [(name, one) for name, one in zip(names, pair, strict=True) if isinstance(one, Evaluation)]
    scored = sorted({one.scored for _, one in found if one.scored})
    notes = [f"Accuracy: {text}; a whole answer has to read the same." for text in scored]
    notes += [f"The {name}: {one.selection}." for name, one in found if one.selection]
    return tuple(notes)
