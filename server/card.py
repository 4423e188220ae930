"""The model card of a finished run: what may be told to everyone about a federation's model. No torch.

A card never names a site, a host or a path. Sites go by pseudonyms that only the federation can resolve; metrics stand
under names of this program alone, reasons in words are left out, and a code that holds a site's name is `other`.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from protocol.errors import UpdateError
from protocol.messages import EPSILON
from protocol.score_curve import merged
from protocol.signing import payload_hash, public_hex
from server.checkpoint import WEIGHTS, load_arrays, saved_round
from server.errors import OutputError
from server.history import VOID, History, code_of
from server.home import Home
from server.journal import RoundRecord
from server.output import JOURNAL, RESULT
from server.pseudonyms import Pseudonyms, plain_code, size_class
from server.public_config import public_config, sha256_of, weights_digest
from server.roster import SiteRegister

KIND, VERSION = "fedmumc model card", 1
THEIR_WORDS = '"'
"""Begins a reason in the journal that a site gave: see `server.tally.quoted`."""
METRICS = (
    "accuracy",
    "accuracy_open",
    "accuracy_closed",
    "accuracy_noise_se",
    "validation_accuracy",
    "loss",
    "tested",
    "tested_open",
    "tested_closed",
)
"""What a card shows of the metrics that sites released; sites could call others as they like."""
INTENDED = (
    "Research on federated pre-training for visual question answering about medical images.",
    "To be fine-tuned and tested by a hospital on its own questions before anyone looks at an answer.",
)
LIMITS = (
    "Research software, not a medical device: no number here says that an answer about a patient is right.",
    "The accuracies are of models that each site fine-tuned on its own questions; they say nothing of other hospitals, "
    "scanners, languages or patients.",
    "The federation vouches for what it saw. It cannot see the sites' data, and a site's numbers are its own.",
    "Without differential privacy nothing bounds what the weights tell of a single patient.",
)

Values = dict[str, Any]


def build(folder: Path, home: Home | None) -> Values:
    """The card of the run in this folder, not yet signed.

    Raises:
        OutputError: the run is not finished, merged nothing, or its weights are of another run.
    """
    history = History.read(folder)
    _check(folder, history)
    register = SiteRegister.read(home) if home else SiteRegister()
    names = sorted({*history.sites, *(site.name for site in register.sites)})
    pseudonyms = Pseudonyms.of(home, history.run_id, names)
    return {
        "kind": KIND,
        "version": VERSION,
        "about": _about(history, home, pseudonyms.run),
        "model": _model(folder, history),
        "digests": _digests(folder, history),
        "configuration": public_config(history.config),
        "rounds": _rounds(history),
        "sites": _sites(history, register, pseudonyms, names),
        "screens": _screens(history, names),
        "privacy": _privacy(history, pseudonyms),
        "evaluation": _evaluation(history, pseudonyms),
        "use": {"intended": list(INTENDED), "limits": list(LIMITS)},
    }


def _check(folder: Path, history: History) -> None:
    if not history.finished:
        raise OutputError(f"{folder} holds no {RESULT}, so its run has not finished; a card is of a finished run")
    if not history.merged:
        raise OutputError(f"the run in {folder} merged no round, so that there is no model to make a card of")
    run_id, round = saved_round(folder)
    if (run_id, round) != (history.run_id, history.merged[-1].round):
        raise OutputError(
            f"{folder / WEIGHTS} are of round {round} of {run_id}, and the journal's last merged round is "
            f"{history.merged[-1].round} of {history.run_id}; put the run's own file back"
        )


def _about(history: History, home: Home | None, run: str) -> Values:
    federation = {"name": home.config().name, "key": public_hex(home.signer())} if home else None
    return {
        "federation": federation,
        "run": run,
        "ended": history.merged[-1].ended,
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {name: metadata.version(name) for name in ("fedmumc", "flwr", "torch")},
    }


def _model(folder: Path, history: History) -> Values:
    weights = load_arrays(folder / WEIGHTS)
    model = history.config["recipe"]["model"]
    return {
        "what": "MUMC: encoders of images and text with fusion layers, pre-trained on pairs of images and captions",
        "image_encoder": dict(model["vision"]),
        "text_encoder": dict(model["text"]),
        "projection": model["projection"],
        "shared_values": sum(array.size for array in weights.values()),
        "shared_tensors": len(weights),
        "method": "Li et al., MICCAI 2023, arXiv 2307.05314",
    }


def _digests(folder: Path, history: History) -> Values:
    """What a copy of the run's files can be held against."""
    from protocol.bundle import installed_digest

    return {
        "weights_file": sha256_of(folder / WEIGHTS),
        "weights": weights_digest(folder / WEIGHTS),
        "journal": sha256_of(folder / JOURNAL),
        "result": sha256_of(folder / RESULT),
        "configuration": payload_hash(history.config),
        "code": history.code or installed_digest(),
        "code_is_of": "the run" if history.code else "the installation that wrote this card",
    }


def _rounds(history: History) -> Values:
    return {
        "planned": history.planned,
        "merged": len(history.merged),
        "void_attempts": len(history.void),
        "rules": sorted({record.rule for record in history.merged}),
        "masked": sum(bool(record.secagg) for record in history.merged),
        "thresholds": sorted({record.secagg["threshold"] for record in history.merged if record.secagg}),
        "sites": [
            {"round": record.round, "merged": record.sites_merged, "expected": record.sites_expected}
            for record in history.merged
        ],
    }


def _sites(history: History, register: SiteRegister, pseudonyms: Pseudonyms, names: Iterable[str]) -> list[Values]:
    """A row a site, sorted by pseudonym, so that even the order says nothing."""
    units, names = {site.name: site.units for site in register.sites}, list(names)
    rows = []
    for site in history.sites:
        missed = Counter(_code(record, site, names) for record in history.records if site not in record.merged)
        rows.append(
            {
                "pseudonym": pseudonyms.site(site),
                "units": size_class(units[site]) if site in units else None,
                "rounds_merged": sum(site in record.merged for record in history.merged),
                "late": sum(site in record.late for record in history.merged),
                "not_in_the_mean": dict(sorted(missed.items())),
            }
        )
    return sorted(rows, key=lambda row: row["pseudonym"])


def _screens(history: History, names: Iterable[str]) -> Values:
    """How often each check of the server refused an update; `sites` says of whom, and what else kept sites out."""
    names = list(names)
    counts = Counter(
        _code(record, site, names)
        for record in history.records
        for site, code in record.refused.items()
        if code in _update_codes() and not record.reasons.get(site, "").startswith(THEIR_WORDS)
    )
    return {"refused_updates": dict(sorted(counts.items())), "settings": dict(history.config["screen"])}


def _code(record: RoundRecord, site: str, names: Iterable[str]) -> str:
    code = code_of(record, site)
    return "void_attempt" if code == VOID else plain_code(code, names)


def _update_codes() -> set[str]:
    """The codes of every check that an update may fail."""
    found, open_ = set(), [UpdateError]
    while open_:
        kind = open_.pop()
        found.add(kind.code)
        open_ += kind.__subclasses__()
    return found


def _privacy(history: History, pseudonyms: Pseudonyms) -> Values:
    """What each site's patients had spent when the last round ended; the largest is the federation's statement."""
    spent: dict[str, float] = {}
    for record in history.records:
        for site, epsilon in record.epsilon.items():
            spent[site] = max(epsilon, spent.get(site, 0.0))
    if not spent:
        return {"differential_privacy": False, "unit": None, "epsilon": None, "sites": {}}
    return {
        "differential_privacy": True,
        "unit": history.config["recipe"]["privacy"].get("unit"),
        "epsilon": max(spent.values()),
        "sites": {pseudonyms.site(site): epsilon for site, epsilon in sorted(spent.items())},
    }


def _evaluation(history: History, pseudonyms: Pseudonyms) -> Values:
    sites = {
        pseudonyms.site(site): {name: _metric(name, metrics[name]) for name in METRICS if name in metrics}
        for site, metrics in history.metrics.items()
    }
    charged = {pseudonyms.site(site): m[EPSILON] for site, m in history.metrics.items() if EPSILON in m}
    curve = merged(history.metrics.values())
    return {
        "what": history.final,
        "sites": dict(sorted(sites.items())),
        "epsilon": dict(sorted(charged.items())),
        "answer_scores": curve.to_dict() if curve else None,
    }


def _metric(name: str, value: float) -> float:
    return size_class(int(value)) if name.startswith("tested") else round(value, 3)
