"""Archives that belong to no hospital: public pairs to pre-train on, and held-out pairs to measure retrieval with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from configs.loader import ConfigurationError
from mumc_model.answering import answer_rows
from mumc_model.checkpoint import load_weights
from mumc_model.data.phantom import write_hospitals
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.samples import VqaSamples
from mumc_model.data.tokenizer import vocabulary
from mumc_model.device import choose_device
from mumc_model.evaluate import AnswerRow
from mumc_model.model import build_model
from mumc_model.privacy import BankConfig
from mumc_model.retrieval import retrieve
from mumc_model.sharing import load_shared
from mumc_model.zero_shot import Matcher, match_questions
from server.config import RunConfig
from server.orders import fit_vocabulary
from simulations.config import SimulationConfig
from simulations.hospitals import configure

_PUBLIC, _HELD_OUT = 0x9B11C, 0x4E1D
"""Keep their draws apart from the hospitals' of any seed."""
HELD_OUT_IMAGES = 200


def write_public(config: SimulationConfig, seed: int, out: Path) -> Path:
    """A synthetic archive of all kinds of images, which is nobody's secret."""
    folder = _archive(config, _PUBLIC + seed, config.public_images, out / "public")
    configure(folder, config)
    return folder


def write_bank(config: SimulationConfig, bank: BankConfig, seed: int, out: Path) -> Path | None:
    """The public archive, where a run contrasts with a bank at its sites; otherwise nothing.

    Raises:
        ConfigurationError: the archive has fewer images than the bank shall have pairs.
    """
    if bank.source != "site":
        return None
    if config.public_images < bank.size:
        raise ConfigurationError(
            f"a bank at the sites is drawn from public_images={config.public_images} public images, and "
            f"privacy.bank.size is {bank.size}; set public_images={bank.size}, or a smaller bank"
        )
    return write_public(config, seed, out)


def write_held_out(config: SimulationConfig, seed: int, out: Path) -> SiteData:
    """Captioned images that no arm has seen."""
    return read_site(_archive(config, _HELD_OUT + seed, HELD_OUT_IMAGES, out / "held-out"))


def retrieval_facts(run: RunConfig, held_out: SiteData) -> dict[str, float]:
    """The share of queries with a right one among the first five, both ways, by a run's merged encoders."""
    tokenizer, device = vocabulary(run.vocabulary), choose_device("auto")
    recipe = fit_vocabulary(run.recipe, len(tokenizer.vocab))
    model = build_model(recipe.model, run.seed)
    load_shared(model, load_weights(Path(run.output_dir) / "weights.safetensors"))
    with torch.no_grad():
        found = retrieve(model, held_out, tokenizer, device=device, caption_tokens=recipe.pretrain.caption_tokens)
    return {
        "retrieval_at_5": float(np.mean(found.captions[5])),
        "retrieval_at_5_back": float(np.mean(found.images[5])),
    }


@torch.no_grad()
def matched_rows(run: RunConfig, weights: Path | None, site: SiteData, device: str) -> list[AnswerRow]:
    """The site's test questions, answered by matching alone: nothing was fine-tuned.

    Which answers there are, the site's training questions say. Without `weights` the model is the random one that the
    run begins with.
    """
    tokenizer, where = vocabulary(run.vocabulary), choose_device(device)
    recipe = fit_vocabulary(run.recipe, len(tokenizer.vocab))
    model = build_model(recipe.model, run.seed)
    if weights:
        load_shared(model, load_weights(weights))
    answers = tuple(dict.fromkeys(row.answer for row in site.vqa if row.split == "train"))
    size, tokens = recipe.model.vision.image_size, recipe.model.text.max_positions
    samples = VqaSamples(site, "test", tokenizer, size, tokens)
    return answer_rows(answers, samples, match_questions(Matcher(model, answers, tokenizer, where), samples))


def _archive(config: SimulationConfig, seed: int, images: int, out: Path) -> Path:
    phantom = replace(
        config.source.phantom,
        hospitals=1,
        unlike=0.0,
        apart="",
        images=images,
        train_questions=0,
        val_questions=0,
        test_questions=0,
    )
    (folder,) = write_hospitals(phantom, out, seed)
    return folder
