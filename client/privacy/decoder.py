"""An answer decoder that may leave its site: fine-tuned at the site's own command line, charged to its own ledger."""

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.privacy.charging import Charges, reserved
from client.privacy.finetune import leaving_facts, patients_asked, private_questions
from client.privacy.finetune_train import OnStep, PrivateFinetuner
from client.privacy.ledger import Ledger
from client.privacy.policy import PrivacyPolicy, check_strength
from client.privacy.pretrain import check_provenance
from client.rounds import as_numpy
from client.site import Site
from configs.compose import compose
from configs.loader import load
from mumc_model.answerer import Answerer
from mumc_model.config import FinetuneConfig, Recipe
from mumc_model.errors import ConfigError
from mumc_model.model import MumcModel
from mumc_model.pretrained import load_tokenizer, read_config
from mumc_model.privacy import PrivacyConfig
from mumc_model.sharing import shared_weights
from protocol.codec import digest, pack
from protocol.schema import WeightSchema


def finetune_to_leave(
    site: Site,
    model_folder: Path,
    out: Path,
    overrides: Sequence[str],
    answers: Path | None,
    *,
    on_start: Callable[[int], None],
    on_step: OnStep,
) -> Mapping[str, Any]:
    """Fine-tune with noise, keep the model in `out`, and give the facts that its card states.

    Args:
        site: The site, whose signed policy and ledger are charged.
        model_folder: Encoders that no uncharged training on the site's patients has touched.
        out: Where the model goes; its list of answers is the public one, or empty.
        overrides: As in `finetune.freeze=encoders privacy.finetune.noise_multiplier=1.2`.
        answers: A public list of answers: a text file with one a line, or a JSON list.
        on_start: Called with the number of steps before the first.
        on_step: Called after each step.

    Raises:
        PrivacyError: there is no signed policy, or budget, ledger, provenance or the model do not allow it.
        CheckpointError: the folder holds no encoders.
        DataError: the site has no training questions.
        ConfigError: the file holds no list of answers, or `out` is not a place for a new folder.
    """
    check_place(out)
    ledger = Ledger.open(site.root)
    policy = ledger.policy()
    texts = public_answers(answers) if answers else ()
    model, tokenizer = MumcModel.from_pretrained(model_folder), load_tokenizer(model_folder)
    source = str(read_config(model_folder).get("facts", {}).get("run", ""))
    check_provenance(site.root, source, _digest(model))
    recipe = _recipe(model, overrides, policy)
    trainer = PrivateFinetuner(model, recipe, site.device, site.config.precision)
    questions = private_questions(trainer, site, tokenizer)
    charges = Charges(
        run=f"decoder-{secrets.token_hex(4)}",
        round=1,
        attempt=1,
        operator="mumc-site finetune",
        recipe=recipe,
        policy=policy,
    )
    on_start(recipe.finetune.steps)
    with reserved(ledger, charges.steps(), patients_asked(site), lambda: trainer.steps_done):
        answering = trainer.run(questions, charges.sample_rate, on_step=on_step)
        facts = leaving_facts(source or "a model folder", recipe, ledger)
        Answerer(model=answering, tokenizer=tokenizer, texts=texts or recipe.privacy.finetune.answers).save(out, facts)
    return facts


def check_place(out: Path) -> None:
    """Return only if a new model can be kept there: what was paid for a model that is lost is not given back.

    Raises:
        ConfigError: something is there already, or nothing can be written there.
    """
    if out.is_dir() and not any(out.iterdir()):
        parent = out
    elif out.exists():
        raise ConfigError(f"{out} is there already, and a model that was paid for is not overwritten; choose another")
    else:
        parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"nothing can be written to {parent}; choose another place for the model, or correct its owner"
        )


def public_answers(file: Path) -> tuple[str, ...]:
    """The texts of a public list, in its order, each once.

    Raises:
        ConfigError: the file cannot be read, or lists nothing.
    """
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the list of answers {file.name} cannot be read ({type(error).__name__}); {_LIST}") from None
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise ConfigError(f"the list of answers {file.name} is no list of texts; {_LIST}")
    texts = tuple(dict.fromkeys(line.strip() for line in found if line.strip()))
    if not texts:
        raise ConfigError(f"the list of answers {file.name} is empty; {_LIST}")
    return texts


_LIST = "give a text file with one public answer a line, or a JSON list"


def _recipe(model: MumcModel, overrides: Sequence[str], policy: PrivacyPolicy) -> Recipe:
    """The run's settings; where they name no unit, the policy's."""
    plain = compose("run", overrides)["recipe"]
    privacy = load(PrivacyConfig, plain["privacy"], "privacy")
    if not privacy.on:
        privacy = replace(privacy, unit=policy.unit)
    noise = privacy.finetune.noise_multiplier
    check_strength(policy, privacy.unit, noise, "privacy.finetune.noise_multiplier")
    finetune = load(FinetuneConfig, plain["finetune"], "finetune")
    return Recipe(model=replace(model.config, queue_size=0), finetune=finetune, privacy=privacy)


def _digest(model: MumcModel) -> str:
    """The digest by which an order would name these weights."""
    weights = as_numpy(shared_weights(model))
    schema = WeightSchema.of(weights)
    return digest(pack(weights, schema), schema)
