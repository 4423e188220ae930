"""A model card in Markdown. Everything in it comes from `card.json`, and the same card gives the same text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from protocol.signing import fingerprint
from server.errors import CardError

Values = Mapping[str, Any]


def to_markdown(card: Values) -> str:
    """The card for people, with the front matter that model hubs read.

    Raises:
        CardError: the card holds something else than the sections of a card.
    """
    try:
        return "\n\n".join(_parts(card)) + "\n"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CardError(f"the card lacks what a card holds ({error}); ask the federation for its card") from None


def _parts(card: Values) -> list[str]:
    return [
        _FRONT,
        f"# Model card of {_cell(card['about']['run'])}",
        _signed(card),
        _section("The model", _table(("", ""), _model_rows(card))),
        _section("Intended use", _list(card["use"]["intended"])),
        _section("Limits", _list(card["use"]["limits"])),
        _section("Rounds", _rounds(card["rounds"])),
        _section("Sites", _SITES, _table(_SITE_HEADS, map(_site_row, card["sites"])), _screens(card["screens"])),
        _section("Privacy", _privacy(card["privacy"])),
        _section("Evaluation", _evaluation(card["evaluation"])),
        _section("Digests", _table(("of", "SHA-256"), _digest_rows(card["digests"]))),
        _section("How to verify", _VERIFY),
        _section("Configuration", _CONFIG, f"```yaml\n{yaml.safe_dump(card['configuration'], sort_keys=True)}```"),
    ]


_FRONT = """\
---
tags: [mumc, medical, visual-question-answering, federated-learning]
pipeline_tag: visual-question-answering
---"""
_SITE_HEADS = ("site", "units, about", "rounds in the mean", "late", "not in the mean")
_SITES = (
    "Sites go by pseudonyms that only the federation can resolve (HMAC-SHA256 of the name under a key that it keeps, "
    "another for every run). Units are patients or images as each site publicly enrolled them, rounded to one digit."
)
_SCORES = (
    "Over validation questions of {sites} sites, the share whose right answer got a probability of at least 0.95, 0.90 "
    "and so on to 0.00: {share}. From it a site with few questions of its own draws short lists of answers."
)
_VERIFY = """\
`card.json` is what is signed; this text is made from it. With fedmumc installed:

    mumc-server card --verify card.json --key KEY --weights weights.safetensors

KEY is the federation's public signing key, from the federation itself; every site has it in its join file as
`server_key`.
The signature is Ed25519 over canonical JSON (sorted keys, no spaces) of a SHA-256 of each section, after the line
`fedmumc/1/model-card`."""
_CONFIG = "As it was played; files and folders go by their digests, and names of sites by their number."


def _signed(card: Values) -> str:
    about, key = card["about"], card["seal"]["key"]
    if not card["seal"]["signature"] or not about["federation"]:
        return "**Not signed.** It was made without a federation's folder, as of a simulation, and vouches for nothing."
    return (
        f"Federation {_cell(about['federation']['name'])}, signed {about['issued']} by the key\n`{key}`\n"
        f"(fingerprint {fingerprint(key)})."
    )


def _model_rows(card: Values) -> list[tuple[str, str]]:
    model, about = card["model"], card["about"]
    vision, text = model["image_encoder"], model["text_encoder"]
    return [
        ("what", model["what"]),
        ("weights", f"{model['shared_values'] / 1e6:.2f} million in {model['shared_tensors']} tensors"),
        ("image encoder", f"ViT, {vision['depth']} x {vision['width']}, patches of {vision['patch_size']} pixels"),
        ("image", f"{vision['image_size']} pixels square"),
        ("text encoder", f"BERT, {text['text_layers']} + {text['fusion_layers']} x {text['width']}"),
        ("method", model["method"]),
        ("last round ended", about["ended"]),
        ("software", ", ".join(f"{name} {version}" for name, version in sorted(about["software"].items()))),
    ]


def _rounds(rounds: Values) -> str:
    lines = [
        f"{rounds['merged']} of {rounds['planned']} rounds were merged, by {', '.join(rounds['rules'])}; attempts that "
        f"came to nothing: {rounds['void_attempts']}.",
        f"Under secure aggregation: {rounds['masked']} rounds"
        + (f", threshold {', '.join(map(str, rounds['thresholds']))}." if rounds["thresholds"] else "."),
    ]
    rows = [(str(r["round"]), f"{r['merged']} of {r['expected']}") for r in rounds["sites"]]
    return "\n".join(lines) + "\n\n" + _table(("round", "sites in the mean"), rows)


def _site_row(site: Values) -> tuple[str, ...]:
    missed = ", ".join(f"{code} {count}" for code, count in site["not_in_the_mean"].items()) or "never"
    units = "not known" if site["units"] is None else f"{site['units']:,}"
    return (site["pseudonym"], units, str(site["rounds_merged"]), str(site["late"]), missed)


def _screens(screens: Values) -> str:
    counts = ", ".join(f"{code} {count}" for code, count in screens["refused_updates"].items())
    return f"Updates that the server's checks refused: {counts or 'none'}."


def _privacy(privacy: Values) -> str:
    if not privacy["differential_privacy"]:
        return "Trained without differential privacy."
    rows = [(site, f"{epsilon:.3f}") for site, epsilon in sorted(privacy["sites"].items())]
    return (
        f"Trained under differential privacy, unit {privacy['unit']}. **Epsilon is at most {privacy['epsilon']:.3f}**, "
        "the largest over sites, life-time at each site and at its own delta; values of sites are not averaged, since "
        "a patient is at one site.\n\n" + _table(("site", "epsilon"), rows)
    )


def _evaluation(evaluation: Values) -> str:
    sites = evaluation["sites"]
    if not sites:
        return "No site released a metric."
    columns = sorted({name for metrics in sites.values() for name in metrics})
    rows = [(site, *(f"{m[name]:g}" if name in m else "" for name in columns)) for site, m in sorted(sites.items())]
    note = "As each site released it of its own fine-tuned model; counts are rounded to one digit."
    charged = [f"{site} {epsilon:.3f}" for site, epsilon in evaluation["epsilon"].items()]
    spent = f"\n\nEpsilon after that: {', '.join(charged)}." if charged else ""
    curve = evaluation.get("answer_scores")
    scores = f"\n\n{_SCORES.format(**curve)}" if curve else ""
    return f"{note}\n\n{_table(('site', *columns), rows)}{spent}{scores}"


def _digest_rows(digests: Values) -> list[tuple[str, str]]:
    words = {
        "weights_file": "weights.safetensors, the file",
        "weights": "the weights, as orders name them",
        "journal": "journal.jsonl",
        "result": "result.json",
        "configuration": "the whole configuration, paths included",
        "code": f"the code of {digests['code_is_of']}",
    }
    return [(word, f"`{digests[name]}`") for name, word in words.items()]


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _cell(text: str) -> str:
    return re.sub(r"([\\|`*\[\]<])", r"\\\1", text)
