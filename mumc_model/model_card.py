"""The README.md of a model's folder: what it is, how it came about, and what it is not for."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Facts = Mapping[str, Any]
"""Facts of the run behind a model, in the order in which its card lists them: nothing that tells of a site."""

_KINDS = {
    "MumcModel": (
        "MUMC encoders for medical images and text",
        "Image and text encoders with fusion layers, pre-trained on pairs of images and captions. Fine-tune them for "
        "visual question answering with `mumc-site finetune SITE --model FOLDER`.",
    ),
    "VqaModel": (
        "MUMC for visual question answering",
        "Answers questions about medical images: `mumc-site ask IMAGE QUESTION --model FOLDER`. The decoder and the "
        "answer list were made from one site's questions and are personal to it: **keep this folder at the site.**",
    ),
}
MAY_LEAVE = "may leave the site"
"""The fact of a model that was fine-tuned under differential privacy."""
_MAY_LEAVE = (
    "Answers questions about medical images: `mumc-site ask IMAGE QUESTION --model FOLDER`. It was fine-tuned on one "
    "site's questions under differential privacy, and charged to the site's signed budget: it **may leave the site.** "
    "What it may tell of {unit} is bounded by epsilon {epsilon} at delta {delta}, with everything else that "
    "the site was charged for until then. It holds no list of the site's answers: it writes its answers, or ranks a "
    "public list."
)


def model_card(kind: str, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """The card in Markdown, with the front matter that model hubs read."""
    title, about = _KINDS[kind]
    if MAY_LEAVE in (facts := config["facts"]):
        about = _MAY_LEAVE.format(unit=f"one {facts['privacy unit']}", epsilon=facts["epsilon"], delta=facts["delta"])
    vision, text = config["model"]["vision"], config["model"]["text"]
    rows = {
        "weights": f"{sum(weight.numel() for weight in weights.values()) / 1e6:.2f} million in {len(weights)} tensors",
        "image encoder": f"ViT, {vision['depth']} x {vision['width']}, patches of {vision['patch_size']} pixels",
        "image": f"{(config.get('finetune') or {}).get('image_size') or vision['image_size']} pixels square",
        "text encoder": f"BERT, {text['text_layers']} + {text['fusion_layers']} x {text['width']}",
        "vocabulary": f"{text['vocab_size']:,} tokens",
        **{name: str(value) for name, value in config["facts"].items()},
    }
    if config["left_out"]:
        rows["not stored"] = ", ".join(f"`{name}*`" for name in config["left_out"])
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
tags: [mumc, medical, visual-question-answering, federated-learning]
pipeline_tag: visual-question-answering
---

# {title}

{about}

| | |
|---|---|
{table}

Research software, not a medical device: no number here says that an answer about a patient is right.

Method: Li et al., Masked Vision and Language Pre-training with Unimodal and Multimodal Contrastive Losses for Medical
Visual Question Answering, MICCAI 2023, arXiv 2307.05314. Written by fedmumc.
"""
