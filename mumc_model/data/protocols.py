"""Under which split a public question is asked, by the name that a report states beside every number.

Importers write the name into each question's labels, so that it stays with the question wherever it is dealt to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LABEL = "protocol"
OWN = "own"
"""Questions that came from no public set."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A public set, split in one named way."""

    name: str
    split: str
    """How train, val and test were divided, in one sentence."""
    grammar: str = "plain"
    """How true answers are written: `plain`, or `vqa_med` with its alternatives and optional words."""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="vqa_rad_official",
            split="VQA-RAD, the owners' split (1,793/451), val by image out of train; test images are also in train",
        ),
        Protocol(
            name="vqa_rad_mevf",
            split="VQA-RAD as in the literature (3,064/451), val by image out of train; test images are also in train",
        ),
        Protocol(name="vqa_rad_image_disjoint", split="VQA-RAD, no image in two splits"),
        Protocol(name="slake_en", split="SLAKE, English, the owners' splits, which share no image"),
        Protocol(name="slake_zh", split="SLAKE, Chinese, the owners' splits, which share no image"),
        Protocol(name="slake_both", split="SLAKE, both languages, each image in the split of its English questions"),
        Protocol(name="pathvqa", split="PathVQA, the owners' splits"),
        Protocol(
            name="vqa_med_2019",
            split="VQA-Med 2019, the owners' splits, train and val without images of VQA-RAD",
            grammar="vqa_med",
        ),
        Protocol(name="vqa_med_2019_full", split="VQA-Med 2019, the owners' splits", grammar="vqa_med"),
    )
}


def protocol_of(labels: Mapping[str, str]) -> str:
    """The name of the protocol that a question with these labels is asked under."""
    return labels.get(LABEL, OWN)


def grammar_of(labels: Mapping[str, str]) -> str:
    """How the true answer to a question with these labels is written."""
    name = protocol_of(labels)
    return PROTOCOLS[name].grammar if name in PROTOCOLS else "plain"


def describe(names: Iterable[str]) -> str:
    """The splits of some protocols, in words."""
    found = sorted(set(names))
    return "; ".join(PROTOCOLS[name].split if name in PROTOCOLS else "the site's own questions" for name in found)
